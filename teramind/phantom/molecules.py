"""Scattering molecules: negative-binomial counts per cell and gene, a dense soma, a thin halo."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from teramind.phantom.catalogue import CELL_TYPES, OUTSIDE, PANEL
from teramind.phantom.cells import captured
from teramind.phantom.tissue import Floats, Tissue, generator

_LEAK = 0.002
_SHAPE = 3.0
_CORE, _HALO = 1.2, 2.5
_CORE_SHARE = 0.75
_BACKGROUND_PER_UM2 = 0.003


def scatter_molecules(
    tissue: Tissue,
    cells: pd.DataFrame,
    *,
    extent_um: tuple[float, float],
    planes_um: Floats,
    seed: int,
) -> pd.DataFrame:
    """Scatter the molecules of `cells` over a field of `extent_um` (y, x) in each section.

    Returns gene (categorical, categories in panel order), x_um, y_um (float32, from the
    field's top left corner) and section (int16), in order of section.
    """
    rng = generator(seed, "molecules")
    means = _means()[cells["type"].cat.codes.to_numpy()]
    means *= rng.gamma(_SHAPE, 1 / _SHAPE, means.shape)
    parts = []
    for section, plane in enumerate(planes_um):
        share = captured(cells, plane)
        shown = np.flatnonzero(share)
        counts = rng.poisson(means[shown] * share[shown, None])
        inside = _around(rng, cells.iloc[shown], counts)
        stray = _background(rng, tissue, extent_um, plane)
        gene, x, y = (np.concatenate(pair) for pair in zip(inside, stray, strict=True))
        parts.append(_table(gene, x, y, extent_um, section))
    return pd.concat(parts, ignore_index=True)


def _means() -> Floats:
    """Return the mean counts (types, genes) of whole cells; every gene leaks a little."""
    means = np.zeros((len(CELL_TYPES), len(PANEL)))
    for row, kind in zip(means, CELL_TYPES.values(), strict=True):
        for gene, weight in kind.genes.items():
            row[PANEL.index(gene)] = weight
        row[:] = kind.molecules * (_LEAK + (1 - _LEAK * len(PANEL)) * row / row.sum())
    return means


def _around(
    rng: np.random.Generator, cells: pd.DataFrame, counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return gene, x and y of `counts` (cells, genes) molecules around their nuclei."""
    cell, gene = (
        np.repeat(index, counts.ravel()) for index in np.indices(counts.shape).reshape(2, -1)
    )
    core = rng.random(len(cell)) < _CORE_SHARE
    reach = np.where(
        core,
        _CORE * np.sqrt(rng.random(len(cell))),
        rng.uniform(_CORE, _HALO, len(cell)),
    )
    turn = rng.uniform(0, 2 * np.pi, len(cell))
    radius, stretch, angle, x, y = (
        cells[name].to_numpy()[cell]
        for name in ("nucleus_radius_um", "elongation", "angle", "x_um", "y_um")
    )
    long = radius * reach * np.sqrt(stretch) * np.cos(turn)
    short = radius * reach / np.sqrt(stretch) * np.sin(turn)
    cos, sin = np.cos(angle), np.sin(angle)
    return gene, x + long * cos - short * sin, y + long * sin + short * cos


def _background(
    rng: np.random.Generator, tissue: Tissue, extent_um: tuple[float, float], plane_um: float
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return gene, x and y of stray molecules: any gene, anywhere in the tissue."""
    height, width = extent_um
    count = rng.poisson(_BACKGROUND_PER_UM2 * height * width)
    x, y = rng.uniform(0, width, count), rng.uniform(0, height, count)
    gene = rng.integers(0, len(PANEL), count)
    tissue_here = tissue.labels(x, y, np.asarray(plane_um)) > OUTSIDE
    return gene[tissue_here], x[tissue_here], y[tissue_here]


def _table(
    gene: NDArray[np.int64], x: Floats, y: Floats, extent_um: tuple[float, float], section: int
) -> pd.DataFrame:
    height, width = extent_um
    x, y = x.astype("f4"), y.astype("f4")
    inside = (x >= 0) & (x < np.float32(width)) & (y >= 0) & (y < np.float32(height))
    return pd.DataFrame(
        {
            "gene": pd.Categorical.from_codes(gene[inside], list(PANEL)),
            "x_um": x[inside],
            "y_um": y[inside],
            "section": np.full(int(inside.sum()), section, np.int16),
        }
    )
