"""Placing cells in the volume by region, along vessel walls and in rows, without crowding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from teramind.phantom.catalogue import CELL_TYPES, NEURONS, OUTSIDE, REGIONS
from teramind.phantom.tissue import LUMEN_UM, Field, Floats, Tissue, generator

MARGIN_UM = 20.0
"""How far outside the field cells are placed, so that none is missing at its edge."""

REACH_UM = 10.0
"""How far above and below a section's plane cells are placed; none farther can show in it."""

HALF_THICKNESS_UM = 4.0
"""Half the optical thickness of a section."""

_TYPE_NAMES = tuple(CELL_TYPES)
_REGION_NAMES = tuple(REGIONS)
_NEURON_CODES = [code for code, name in enumerate(_TYPE_NAMES) if name in NEURONS]
_RATE = max(region.density for region in REGIONS.values())
_WALL_UM = 1.0
_WALL_DENSITY = 8e-4
_WALL_TYPES = {"endothelial": 0.85, "mural": 0.15}
_ROW_UM = 13.0
_CLEARANCE = 0.86

_FLATTENED = 0.6
"""Cells keep this part of the distance along z only that they keep in the plane: what shows in a
section lies side by side more often than one above the other."""

_DOUBLETS = 0.03
"""Part of the neurons with a glial cell touching them."""

_SATELLITES = {"oligodendrocyte": 0.5, "microglia": 0.25, "astrocyte": 0.25}


def place_cells(
    tissue: Tissue, *, extent_um: tuple[float, float], planes_um: Floats, seed: int
) -> pd.DataFrame:
    """Place the cells that can show in a field of `extent_um` (y, x) at the planes `planes_um` (z).

    Returns one row per cell, margin included: id (from 1), type, region, x_um, y_um, z_um,
    nucleus_radius_um (of the circle of equal area), elongation (long over short axis),
    angle (radians of the long axis, for pyramidal cells of their apical dendrite) and brightness
    (about 1).
    """
    rng = generator(seed, "cells")
    at = _candidates(rng, extent_um, planes_um)
    labels = tissue.labels(*at)
    kinds = _kinds(rng, tissue, labels, at)
    chosen = np.flatnonzero(kinds >= 0)
    points, kinds, labels = np.stack(at, 1)[chosen], kinds[chosen], labels[chosen]
    partners = np.flatnonzero(np.isin(kinds, _NEURON_CODES) & (rng.random(len(kinds)) < _DOUBLETS))
    kinds = np.append(kinds, _draw(rng, _SATELLITES, len(partners)))
    labels = np.append(labels, labels[partners])
    radius = _per_type("diameter_um")[kinds] / 2 * rng.lognormal(0, 0.06, len(kinds))
    girth = _CLEARANCE * radius * (1 + _per_type("soma")[kinds]) / 2
    touching = 1.02 * (girth[partners] + girth[len(points) :])
    points = np.concatenate([points, _beside(rng, points[partners], touching)])
    free = _uncrowded(points * (1, 1, _FLATTENED), girth)
    kinds, labels, radius = kinds[free], labels[free], radius[free]
    x, y, z = points[free].T.astype("f4")
    return pd.DataFrame(
        {
            "id": np.arange(1, len(x) + 1, dtype=np.int32),
            "type": pd.Categorical.from_codes(kinds, list(_TYPE_NAMES)),
            "region": pd.Categorical.from_codes(labels, list(_REGION_NAMES)),
            "x_um": x,
            "y_um": y,
            "z_um": z,
            "nucleus_radius_um": radius.astype("f4"),
            "elongation": _per_type("elongation")[kinds] * rng.lognormal(0, 0.06, len(x)),
            "angle": _angles(rng, tissue, kinds, (x, y, z)),
            "brightness": rng.lognormal(0, 0.1, len(x)),
        }
    )


def captured(cells: pd.DataFrame, plane_um: float) -> Floats:
    """Return the part (0..1) of each nucleus' depth that lies inside the section at `plane_um`."""
    radius = cells["nucleus_radius_um"].to_numpy()
    away = np.abs(cells["z_um"].to_numpy() - plane_um)
    depth = np.minimum(away + radius, HALF_THICKNESS_UM) - np.maximum(
        away - radius, -HALF_THICKNESS_UM
    )
    return np.asarray(np.clip(depth / np.minimum(2 * radius, 2 * HALF_THICKNESS_UM), 0, 1))


def chord(cells: pd.DataFrame, plane_um: float) -> Floats:
    """Return the radius of each nucleus' widest cut in the section, relative to its own (0..1)."""
    away = np.abs(cells["z_um"].to_numpy() - plane_um) - HALF_THICKNESS_UM
    off_centre = np.clip(away / cells["nucleus_radius_um"].to_numpy(), 0, 1)
    return np.asarray(np.sqrt(1 - off_centre**2))


def _per_type(attribute: str) -> Floats:
    return np.array([getattr(kind, attribute) for kind in CELL_TYPES.values()], np.float32)


def _candidates(
    rng: np.random.Generator, extent_um: tuple[float, float], planes_um: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return uniform positions x, y, z at the densest region's density, in reach of the planes."""
    between = (planes_um[1:] + planes_um[:-1]) / 2
    bottom = np.maximum(planes_um - REACH_UM, np.append(-np.inf, between))
    top = np.minimum(planes_um + REACH_UM, np.append(between, np.inf))
    filled = np.cumsum(top - bottom)
    height, width = (edge + 2 * MARGIN_UM for edge in extent_um)
    count = rng.poisson(_RATE * height * width * filled[-1])
    level = rng.uniform(0, filled[-1], count)
    slab = np.searchsorted(filled, level)
    z = level - filled[slab] + top[slab]
    x = rng.uniform(0, width, count) - MARGIN_UM
    y = rng.uniform(0, height, count) - MARGIN_UM
    return x.astype("f4"), y.astype("f4"), z.astype("f4")


def _kinds(
    rng: np.random.Generator,
    tissue: Tissue,
    labels: NDArray[np.uint8],
    at: tuple[Floats, Floats, Floats],
) -> NDArray[np.int8]:
    """Return the type that each candidate becomes, -1 for none."""
    density = np.array([region.density for region in REGIONS.values()])[labels]
    rows = labels == _REGION_NAMES.index("white matter")
    density[rows] *= 1 + np.cos(2 * np.pi / _ROW_UM * tissue.depth(*at)[rows])
    chance = rng.random(len(labels)) * _RATE
    kinds = np.full(len(labels), -1, np.int8)
    for label, region in enumerate(REGIONS.values()):
        here = (labels == label) & (chance < density)
        if region.mixture:
            kinds[here] = _draw(rng, region.mixture, int(here.sum()))
    distance = tissue.vessel_distance(*at)
    kinds[distance < LUMEN_UM + _WALL_UM] = -1
    wall = (np.abs(distance - LUMEN_UM) < _WALL_UM) & (labels > OUTSIDE) & (chance < _WALL_DENSITY)
    kinds[wall] = _draw(rng, _WALL_TYPES, int(wall.sum()))
    return kinds


def _draw(rng: np.random.Generator, mixture: Mapping[str, float], count: int) -> NDArray[np.int8]:
    weights = np.array(list(mixture.values()))
    codes = np.array([_TYPE_NAMES.index(name) for name in mixture], np.int8)
    return rng.choice(codes, count, p=weights / weights.sum())


def _beside(rng: np.random.Generator, points: Floats, away_um: Floats) -> Floats:
    """Return positions (n, 3) so far from `points`, in the same plane."""
    turn = rng.uniform(0, 2 * np.pi, len(points))
    step = np.stack([np.cos(turn), np.sin(turn), np.zeros(len(points))], 1)
    return np.asarray(points + away_um[:, None] * step, np.float32)


def _uncrowded(points: Floats, radius: Floats) -> NDArray[np.intp]:
    """Return the indices kept when, first come first served, no two are too close."""
    pairs = cKDTree(points).query_pairs(2 * float(radius.max(initial=0)), output_type="ndarray")
    gap = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    pairs = pairs[gap < radius[pairs].sum(1)]
    open_, kept = np.ones(len(points), bool), np.zeros(len(points), bool)
    while open_.any():
        pairs = pairs[open_[pairs].all(1)]
        first = open_.copy()
        first[pairs[:, 1]] = False
        kept |= first
        open_ &= ~first
        open_[pairs[first[pairs[:, 0]], 1]] = False
    return np.flatnonzero(kept)


def _angles(
    rng: np.random.Generator,
    tissue: Tissue,
    kinds: NDArray[np.int8],
    at: tuple[Floats, Floats, Floats],
) -> Floats:
    """Return the angle of the long axis: along what the cell belongs to, or any."""
    angle = rng.uniform(-np.pi, np.pi, len(kinds))
    spread = rng.normal(0, 0.2, len(kinds))
    for names, course in _courses(tissue):
        here = np.isin(kinds, [_TYPE_NAMES.index(name) for name in names])
        angle[here] = course(*(a[here] for a in at)) + spread[here]
    return angle


def _courses(tissue: Tissue) -> Iterator[tuple[list[str], Field]]:
    """Yield types and what their long axes follow."""
    apical = [name for name, kind in CELL_TYPES.items() if kind.apical]
    in_ammon = [name for name in apical if name.startswith("CA")]
    yield [name for name in apical if name not in in_ammon], lambda *at: tissue.inward(*at) + np.pi
    yield in_ammon, lambda *at: tissue.from_dentate(*at) + np.pi
    yield ["oligodendrocyte", "fibroblast"], lambda *at: tissue.inward(*at) + np.pi / 2
    yield ["ependymal"], tissue.wall_course
    yield list(_WALL_TYPES), tissue.vessel_course
