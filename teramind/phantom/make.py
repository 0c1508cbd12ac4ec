"""Making a phantom: lay out the tissue, place the cells, scatter molecules, paint the sections."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from teramind.errors import UserError
from teramind.phantom.catalogue import PANEL, REGIONS
from teramind.phantom.cells import place_cells
from teramind.phantom.molecules import scatter_molecules
from teramind.phantom.render import render_section
from teramind.phantom.tissue import Tissue

STAINS = ("DAPI", "PolyT")

_ROWS = 64

_LARGEST = 1 << 40
"""Pixels, and um2, of all sections. No machine holds more, and arrays fail in other ways then."""


@dataclass(frozen=True)
class Phantom:
    """Paired stains, molecules and cells of made-up tissue. Positions are um from the top left.

    `images` is uint8 (c, z, y, x), c = DAPI, PolyT; `nuclei` int32 (z, y, x), the id of the cell
    whose nucleus shows at a pixel, 0 for none. `molecules` has gene, x_um, y_um and section.
    `cells` has one row per id in `nuclei`, also where the centre lies outside the field: id, type,
    region, x_um, y_um, z_um (section k lies at k times the spacing), nucleus_radius_um, elongation,
    angle and brightness; of cells whose nuclei do not show there may be molecules. `regions` is the
    label map (y, x) of the middle section; label i is `region_names[i]`, label 0 the ventricle, 1
    what lies outside the brain.
    """

    images: NDArray[np.uint8]
    nuclei: NDArray[np.int32]
    molecules: pd.DataFrame
    cells: pd.DataFrame
    regions: NDArray[np.uint8]
    pixel_size_um: float
    section_spacing_um: float
    seed: int
    region_names: tuple[str, ...] = tuple(REGIONS)
    panel: tuple[str, ...] = PANEL


def make_phantom(
    *,
    height: int,
    width: int,
    sections: int,
    pixel_size_um: float = 0.6,
    section_spacing_um: float = 10.0,
    seed: int = 0,
) -> Phantom:
    """Make a phantom of `sections` images of `height` x `width` pixels; a seed fixes every voxel.

    The plan of a coronal section (see `anatomy`) covers the images, whatever their size: those of
    its proportions, from about 760 um on, show the whole of it, others a window into it. Sections
    follow each other: layers, vessels and the cells that two of them cut through go on.

    Memory: the result, and some fourteen float32 copies of one section, or 0.3 kB for each of
    0.09 candidates for cells per um2 of every section if that is more.

    Raises `UserError` when a size is not positive or too large, or the seed is negative.
    """
    _check_positive(height=height, width=width, sections=sections)
    _check_positive(pixel_size_um=pixel_size_um, section_spacing_um=section_spacing_um)
    if seed < 0:
        raise UserError(f"phantom: seed is {seed}; it must be 0 or greater")
    with _that_fits(height, width, sections, pixel_size_um):
        extent = (height * pixel_size_um, width * pixel_size_um)
        tissue = Tissue(seed, extent)
        planes = np.arange(sections) * section_spacing_um
        cells = place_cells(tissue, extent_um=extent, planes_um=planes, seed=seed)
        images = np.empty((len(STAINS), sections, height, width), np.uint8)
        nuclei = np.empty((sections, height, width), np.int32)
        for z, plane in enumerate(planes):
            images[:, z], nuclei[z] = render_section(
                tissue,
                cells,
                shape=(height, width),
                pixel_size_um=pixel_size_um,
                plane_um=float(plane),
                seed=seed,
            )
        return Phantom(
            images=images,
            nuclei=nuclei,
            molecules=scatter_molecules(
                tissue, cells, extent_um=extent, planes_um=planes, seed=seed
            ),
            cells=_shown(cells, nuclei),
            regions=_region_map(tissue, (height, width), pixel_size_um, planes[sections // 2]),
            pixel_size_um=pixel_size_um,
            section_spacing_um=section_spacing_um,
            seed=seed,
        )


def _check_positive(**sizes: float) -> None:
    for name, size in sizes.items():
        if not 0 < size < math.inf:
            raise UserError(f"phantom: {name} is {size:g}; it must be above 0 and finite")


@contextmanager
def _that_fits(height: int, width: int, sections: int, pixel_size_um: float) -> Iterator[None]:
    """Refuse sizes that the block finds no memory for."""
    line = (
        f"phantom: {sections} sections of {height} x {width} pixels of {pixel_size_um:g} um do not "
        "fit into memory; ask for less"
    )
    if sections * height * width * max(1.0, pixel_size_um * pixel_size_um) > _LARGEST:
        raise UserError(line)
    try:
        yield
    except MemoryError:
        raise UserError(line) from None


def _shown(cells: pd.DataFrame, nuclei: NDArray[np.int32]) -> pd.DataFrame:
    """Keep the cells whose nucleus shows at a pixel of a section."""
    shows = np.zeros(len(cells) + 1, bool)  # ids count from 1, in the order of rows
    for labels in nuclei:
        shows[labels] = True
    return cells[shows[1:]].reset_index(drop=True)


def _region_map(
    tissue: Tissue, shape: tuple[int, int], pixel_size_um: float, plane_um: float
) -> NDArray[np.uint8]:
    """Return the label map (y, x), worked out a few rows at a time to bound memory."""
    y = ((np.arange(shape[0]) + 0.5) * pixel_size_um)[:, None]
    x = ((np.arange(shape[1]) + 0.5) * pixel_size_um)[None]
    z = np.asarray(plane_um)
    blocks = [tissue.labels(x, y[row : row + _ROWS], z) for row in range(0, shape[0], _ROWS)]
    return np.concatenate(blocks)
