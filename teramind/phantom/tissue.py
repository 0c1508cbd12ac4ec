"""Where the regions and vessels lie: smooth functions of position (um) and seed, of any extent."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from teramind.phantom.catalogue import REGIONS

Floats = NDArray[np.floating]
Field = Callable[[Floats, Floats, Floats], Floats]

BANDS: tuple[tuple[str, float], ...] = (
    ("L1", 42.0),
    ("L2/3", 62.0),
    ("L4", 42.0),
    ("L5", 64.0),
    ("L6", 56.0),
    ("white matter", 46.0),
    ("hippocampal neuropil", 150.0),
    ("midbrain", 110.0),
    ("ventricle", 48.0),
)
"""Bands met from the pia inwards and their widths in um; after the last the first begins again."""

LUMEN_UM = 3.0
"""Half the width of a vessel's lumen."""

_NAMES = tuple(REGIONS)
_BAND_LABELS = np.array([_NAMES.index(name) for name, _ in BANDS], np.uint8)
_BAND_EDGES = np.cumsum([0.0, *(width for _, width in BANDS)])
_HIPPOCAMPUS = float(_BAND_EDGES[[name for name, _ in BANDS].index("hippocampal neuropil")])
_RIBBON_SWING_UM, _RIBBON_PERIOD_UM, _RIBBON_HALF_UM = 42.0, 240.0, 19.0


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return the random generator of one purpose, independent of every other purpose's."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


class Waves:
    """A smooth random field of unit variance: a sum of plane waves of about one wavelength.

    It changes along z about as slowly as over three wavelengths in the plane.
    """

    def __init__(self, rng: np.random.Generator, wavelength_um: float, waves: int = 9):
        heading = rng.uniform(0, 2 * np.pi, waves)
        number = 2 * np.pi / (wavelength_um * rng.uniform(0.75, 1.6, waves))
        tilt = rng.normal(0, 0.3, waves)
        self._wave = (number * np.stack([np.cos(heading), np.sin(heading), tilt])).astype("f4")
        self._phase = rng.uniform(0, 2 * np.pi, waves).astype("f4")

    def __call__(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Return the field at positions in um; the arrays broadcast."""
        kx, ky, kz = self._wave
        parts = zip(kx, ky, kz, self._phase, strict=True)
        total = sum(np.cos(a * x + b * y + c * z + phase) for a, b, c, phase in parts)
        return np.asarray(total * np.sqrt(2 / len(kx)), np.float32)


class Tissue:
    """The layout of one seed. All positions are x, y, z in um and broadcast against each other."""

    def __init__(self, seed: int):
        rng = generator(seed, "tissue")
        self._turn = rng.uniform(0, 2 * np.pi)
        self._shift = rng.uniform(0, _BAND_EDGES[-1])
        self._folds = [(110.0, Waves(rng, 900)), (26.0, Waves(rng, 260)), (4.0, Waves(rng, 75))]
        self._along = Waves(rng, 400)
        self._cluster = Waves(rng, 120)
        self._vessel = Waves(rng, 190)
        self._perfused = Waves(rng, 170)

    def depth(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Return the depth below the pia in um, growing on from one cycle of bands to the next."""
        straight = np.cos(self._turn) * x + np.sin(self._turn) * y + self._shift
        return np.asarray(straight + sum(a * fold(x, y, z) for a, fold in self._folds))

    def labels(self, x: Floats, y: Floats, z: Floats) -> NDArray[np.uint8]:
        """Return the region labels: positions in `catalogue.REGIONS`."""
        depth = self.depth(x, y, z) % _BAND_EDGES[-1]
        band = np.searchsorted(_BAND_EDGES, depth, side="right") - 1
        labels: NDArray[np.uint8] = _BAND_LABELS[band]
        ribbon = (labels == _NAMES.index("hippocampal neuropil")) & self._in_ribbon(depth, x, y, z)
        labels[ribbon] = _NAMES.index("granule band")
        nucleus = (labels == _NAMES.index("midbrain")) & (self._cluster(x, y, z) > 0.3)
        labels[nucleus] = _NAMES.index("dopaminergic cluster")
        return labels

    def _in_ribbon(self, depth: Floats, x: Floats, y: Floats, z: Floats) -> NDArray[np.bool_]:
        along = np.cos(self._turn) * y - np.sin(self._turn) * x + 40 * self._along(x, y, z)
        turn = 2 * np.pi / _RIBBON_PERIOD_UM
        middle = _HIPPOCAMPUS + 75 + _RIBBON_SWING_UM * np.sin(turn * along)
        slope = _RIBBON_SWING_UM * turn * np.cos(turn * along)
        return np.asarray(np.abs(depth - middle) < _RIBBON_HALF_UM * np.sqrt(1 + slope**2))

    def vessel_distance(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Return the distance in um to the nearest vessel's axis, infinite where none is near."""
        value = self._vessel(x, y, z)
        distance = np.abs(value) / np.maximum(np.hypot(*gradient(self._vessel, x, y, z)), 1e-3)
        return np.where(self._perfused(x, y, z) > 0, distance, np.inf)

    def inward(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Return the angle (radians, from x towards y) in which the depth grows fastest."""
        dx, dy = gradient(self.depth, x, y, z)
        return np.arctan2(dy, dx)

    def vessel_course(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Return the angle (radians, from x towards y) along the nearest vessel."""
        dx, dy = gradient(self._vessel, x, y, z)
        return np.arctan2(dy, dx) + np.pi / 2


def gradient(field: Field, x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats]:
    """Return the field's slopes along x and y, per um."""
    step = 1.0
    here = field(x, y, z)
    return (field(x + step, y, z) - here) / step, (field(x, y + step, z) - here) / step
