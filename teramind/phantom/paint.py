"""Painting cells on a section: each with its own dented nucleus, chromocentres and soma."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from teramind.phantom.catalogue import CELL_TYPES, CellType
from teramind.phantom.cells import captured, chord
from teramind.phantom.tissue import Floats

_LEAST_SHOWN = 0.08
_NUCLEUS_DENTS, _SOMA_DENTS = 0.07, 0.16
_SOMA_SOFTNESS = 0.35
_NUCLEUS_SHADE = 0.3
_REACH, _APICAL_REACH = 1.4, 2.3
_DEFOCUS = 0.22
"""Blur of a rim in um per um between a nucleus and the plane in focus."""
_LABELLED = 0.5


class Painting(NamedTuple):
    """Nuclei and somata (y, x) in 0..1, and the id of the cell whose nucleus shows, 0 for none."""

    nuclei: Floats
    somata: Floats
    labels: NDArray[np.int32]


def paint_cells(
    cells: pd.DataFrame,
    *,
    shape: tuple[int, int],
    pixel_size_um: float,
    plane_um: float,
    seed: int,
) -> Painting:
    """Paint one section before optics.

    A cell keeps its outlines and chromocentres from section to section; what lies off the middle of
    the section is out of focus.
    """
    nuclei, somata = np.zeros((2, *shape), np.float32)
    labels, brightest = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    share = captured(cells, plane_um)
    drawn = cells.assign(
        radius=cells["nucleus_radius_um"] * chord(cells, plane_um),
        light=cells["brightness"] * np.sqrt(share),
        blur=pixel_size_um + _DEFOCUS * (cells["z_um"] - plane_um).abs(),
    )[share > _LEAST_SHOWN]
    for cell in drawn.itertuples():
        kind = CELL_TYPES[cell.type]
        stretch = math.sqrt(cell.elongation)
        reach = cell.radius * kind.soma * stretch * (_APICAL_REACH if kind.apical else _REACH)
        window, dx, dy = _window((cell.x_um, cell.y_um), reach, shape, pixel_size_um)
        along, across = _turned(dx, dy, cell.angle)
        along, across = along / (cell.radius * stretch), across * (stretch / cell.radius)
        rng = np.random.default_rng([seed, cell.id])
        inside, light, soma = _cell(along, across, kind, cell.blur / cell.radius, rng)
        _screen(nuclei[window], light * (kind.dapi * cell.light))
        _screen(somata[window], soma * (kind.polyt * cell.light))
        seen = inside * cell.light
        over = (inside > _LABELLED) & (seen > brightest[window])
        labels[window][over], brightest[window][over] = cell.id, seen[over]
    return Painting(nuclei, somata, labels)


def _window(
    centre_um: tuple[float, float], reach_um: float, shape: tuple[int, int], pixel_size_um: float
) -> tuple[tuple[slice, slice], Floats, Floats]:
    """Return the pixels within reach of a position x, y, and their x and y from it in um."""
    parts, offsets = [], []
    for centre, size in zip(centre_um[::-1], shape, strict=True):
        low, high = (centre - reach_um) / pixel_size_um, (centre + reach_um) / pixel_size_um
        part = slice(min(max(math.floor(low), 0), size), min(max(math.ceil(high), 0), size))
        pixels = np.arange(part.start, part.stop, dtype=np.float32)
        parts.append(part)
        offsets.append((pixels + 0.5) * pixel_size_um - centre)
    return (parts[0], parts[1]), offsets[1][None], offsets[0][:, None]


def _turned(dx: Floats, dy: Floats, angle: float) -> tuple[Floats, Floats]:
    cos, sin = math.cos(angle), math.sin(angle)
    return dx * cos + dy * sin, dy * cos - dx * sin


def _cell(
    along: Floats, across: Floats, kind: CellType, soft: float, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Return nucleus, its light and the soma, by nucleus radii along and across the long axis."""
    distance, turn = np.hypot(along, across), np.arctan2(across, along)
    nucleus = _disc(distance * _dents(turn, _NUCLEUS_DENTS, rng), soft)
    rim = distance * _dents(turn, _SOMA_DENTS, rng) / _soma_radius(turn, kind)
    soma = _disc(rim, _SOMA_SOFTNESS) * (1 - _NUCLEUS_SHADE * nucleus)
    return nucleus, nucleus * _chromatin(along, across, rng), soma


def _disc(distance: Floats, soft: float) -> Floats:
    """Return 1 inside the unit disc, fading to 0 over `soft` around its rim, and slightly domed."""
    rim = np.clip((1 - distance) / soft + 0.5, 0, 1)
    return np.asarray(rim * (0.82 + 0.18 * np.sqrt(np.clip(1 - distance**2, 0, 1))))


def _dents(turn: Floats, depth: float, rng: np.random.Generator) -> Floats:
    """Return a factor around 1 for the distance in each direction, drawn from `rng`."""
    phases = rng.uniform(0, 2 * np.pi, 3).tolist()
    waves = (np.cos(k * turn + phase) / k for k, phase in zip((2, 3, 4), phases, strict=True))
    return np.asarray(1 + depth * sum(waves))


def _soma_radius(turn: Floats, kind: CellType) -> float | NDArray[np.floating]:
    """Return the soma's radius in nucleus radii in each direction: apical somata have a tip."""
    if not kind.apical:
        return kind.soma
    return np.asarray(kind.soma * (0.9 + 0.9 * np.exp((np.cos(turn) - 1) / 0.035)))


def _chromatin(along: Floats, across: Floats, rng: np.random.Generator) -> Floats:
    """Return the brightness inside a nucleus: 1 and a few bright chromocentres."""
    light = np.ones_like(along)
    for _ in range(rng.integers(2, 6)):
        turn, reach = rng.uniform(0, 2 * math.pi), 0.75 * math.sqrt(rng.random())
        from_spot = (along - reach * math.cos(turn)) ** 2 + (across - reach * math.sin(turn)) ** 2
        light += 0.5 * np.exp(from_spot / (-2 * rng.uniform(0.13, 0.24) ** 2))
    return light


def _screen(canvas: Floats, light: Floats) -> None:
    """Add light to a canvas in place so that overlaps saturate towards 1."""
    canvas += np.clip(light, 0, 1) * (1 - canvas)
