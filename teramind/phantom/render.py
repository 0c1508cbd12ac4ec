"""Painting the stains of one section: DAPI nuclei, PolyT somata, optics and camera noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from teramind.phantom.catalogue import REGIONS
from teramind.phantom.paint import paint_cells
from teramind.phantom.tissue import LUMEN_UM, Floats, Tissue, generator

_PSF_UM = 0.5
_HAZE_UM, _HAZE = 5.0, 0.2
_DAPI_FLOOR, _DAPI_RANGE = 8.0, 300.0
_POLYT_RANGE = 250.0
_GRAIN_UM = 0.7
_NOISE = 1.5
_COARSE = 4


def render_section(
    tissue: Tissue,
    cells: pd.DataFrame,
    *,
    shape: tuple[int, int],
    pixel_size_um: float,
    plane_um: float,
    seed: int,
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return one section's stains, uint8 (c, y, x), c = DAPI, PolyT, and its nuclei's ids (y, x).

    Memory: some fourteen float32 copies of the section.
    """
    rng = generator(seed, f"render {plane_um}")
    nuclei, somata, labels = paint_cells(
        cells, shape=shape, pixel_size_um=pixel_size_um, plane_um=plane_um, seed=seed
    )
    dapi = _DAPI_FLOOR + _DAPI_RANGE * _optics(nuclei, pixel_size_um)
    neuropil = _neuropil(tissue, shape, pixel_size_um, plane_um)
    grain = _grain(rng, shape, _GRAIN_UM / pixel_size_um)
    polyt = (neuropil + (_POLYT_RANGE - neuropil) * _optics(somata, pixel_size_um)) * grain
    noise = rng.normal(0, _NOISE, (2, *shape)).astype("f4")
    grey = np.clip(np.stack([dapi, polyt]) + noise, 0, 255)
    return np.asarray(grey.round(), np.uint8), labels


def _optics(canvas: Floats, pixel_size_um: float) -> Floats:
    """Blur to the optical resolution and add the glow of what is out of focus."""
    sharp = ndimage.gaussian_filter(canvas, _PSF_UM / pixel_size_um)
    glow = ndimage.gaussian_filter(canvas, _HAZE_UM / pixel_size_um)
    return np.asarray((1 - _HAZE) * sharp + _HAZE * glow)


def _grain(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Floats:
    """Return a granular texture around 1: fine grains on a coarse mottle."""
    fine = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), sigma)
    coarse = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), 4 * sigma)
    spreads = [field.std() or 1 for field in (fine, coarse)]  # a single pixel has none
    return np.asarray(1 + 0.07 * fine / spreads[0] + 0.05 * coarse / spreads[1])


def _neuropil(
    tissue: Tissue, shape: tuple[int, int], pixel_size_um: float, plane_um: float
) -> Floats:
    """Return the PolyT grey level (y, x) between the cells, darker in vessels."""
    step = _COARSE * pixel_size_um
    y = (np.arange(-(-shape[0] // _COARSE)) + 0.5)[:, None] * step
    x = (np.arange(-(-shape[1] // _COARSE)) + 0.5)[None] * step
    z = np.asarray(plane_um)
    level = np.array([region.neuropil for region in REGIONS.values()], np.float32)
    level = ndimage.gaussian_filter(level[tissue.labels(x, y, z)], 3.0 / step)
    lumen = np.exp(-((tissue.vessel_distance(x, y, z) / LUMEN_UM) ** 2))
    coarse = level * (1 - 0.45 * lumen)
    fine = ndimage.zoom(coarse, _COARSE, order=1, mode="nearest", grid_mode=True)
    return np.asarray(fine[: shape[0], : shape[1]], np.float32)
