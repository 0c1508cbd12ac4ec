"""Where regions and vessels lie: smooth functions of position (um), of a seed and the field's size.

The plan of `anatomy` covers the field: a large field of its proportions shows the whole of it, a
long one a strip of it. Below `LEAST_UM` its layers would be thinner than cells; a smaller field is
a window into it. The layers of granule and pyramidal cells are a few cells thick in every field.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from teramind.phantom import anatomy
from teramind.phantom.catalogue import REGIONS

Floats = NDArray[np.floating]
Field = Callable[[Floats, Floats, Floats], Floats]

LEAST_UM = 760.0
"""Height of the plan in um at least."""

LUMEN_UM = 3.0
"""Half the width of a vessel's lumen."""

_NAMES = tuple(REGIONS)
_LAYER_LABELS = np.array([_NAMES.index(name) for name, _ in anatomy.LAYERS], np.uint8)
_LAYER_ENDS = np.array([end for _, end in anatomy.LAYERS])
_CORTEX_END = dict(anatomy.LAYERS)["L6"]
_GRANULE_HALF = (0.019, 13.0, 40.0)
_PYRAMIDAL_HALF = (0.016, 11.0, 30.0)
_AROUND_AMMON, _AROUND_DENTATE = 0.095, 0.080
_EPENDYMA_UM, _PIA_UM = 7.0, 7.0


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return the random generator of one purpose, independent of every other purpose's."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


class Waves:
    """A smooth random field of unit variance: a sum of plane waves of about one wavelength.

    It changes along z about as slowly as over three wavelengths in the plane. `spread` is how far
    (radians) the waves' headings lie from x.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        wavelength_um: float,
        waves: int = 9,
        spread: float = np.pi,
    ):
        heading = rng.uniform(-spread, spread, waves)
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


class _Place(NamedTuple):
    """Coordinates on the plan of `anatomy`."""

    u: Floats
    v: Floats

    @property
    def w(self) -> Floats:
        return np.asarray(self.v - anatomy.bend(self.u))


class Tissue:
    """The layout of one seed. All positions are x, y, z in um and broadcast against each other."""

    def __init__(self, seed: int, extent_um: tuple[float, float]):
        rng = generator(seed, "tissue")
        height, width = extent_um
        self.size_um = max(LEAST_UM, height / anatomy.HEIGHT, width / anatomy.WIDTH)
        self._mirrored = rng.random() < 0.5
        self._width = width
        self._corner = _corner(rng, height / self.size_um, width / self.size_um)
        scales = ((0.012, 0.6), (0.005, 0.2))
        self._warps = [
            [(a * self.size_um, Waves(rng, b * self.size_um)) for a, b in scales] for _ in range(2)
        ]
        self._rough = Waves(rng, 60)
        self._capillary = Waves(rng, 190)
        self._perfused = Waves(rng, 170)
        self._penetrating = Waves(rng, 300, spread=0.25)

    def _place(self, x: Floats, y: Floats, z: Floats) -> _Place:
        across, down = (sum(a * wave(x, y, z) for a, wave in warp) for warp in self._warps)
        across = (self._width - x if self._mirrored else x) + across
        down = y + down + 2.0 * self._rough(x, y, z)
        v, u = (part / self.size_um for part in (down, across))
        return _Place(np.abs(u + self._corner[1] - anatomy.MIDLINE), v + self._corner[0])

    def depth(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Return the depth below the pia in um, negative outside the brain."""
        at = self._place(x, y, z)
        return np.asarray(anatomy.depth(at.u, at.v) * self.size_um)

    def labels(self, x: Floats, y: Floats, z: Floats) -> NDArray[np.uint8]:
        """Return the region labels: positions in `catalogue.REGIONS`."""
        at = self._place(x, y, z)
        depth = anatomy.depth(at.u, at.v)
        labels = np.full(depth.shape, _NAMES.index("white matter"), np.uint8)
        for name, ellipse in (
            ("thalamus", anatomy.THALAMUS),
            ("white matter", anatomy.PEDUNCLE),
            ("substantia nigra", anatomy.NIGRA),
            ("medial habenula", anatomy.HABENULA),
        ):
            labels[anatomy.in_ellipse(ellipse, at.u, at.v)] = _NAMES.index(name)
        self._draw_hippocampus(labels, at)
        layered = depth < _LAYER_ENDS[-1]
        layer = np.searchsorted(_LAYER_ENDS, depth[layered], side="right")
        labels[layered] = _LAYER_LABELS[layer]
        wall = anatomy.ventricle_distance(at.u, at.w) * self.size_um
        labels[wall < _EPENDYMA_UM] = _NAMES.index("ependyma")
        labels[wall < 0] = _NAMES.index("ventricle")
        labels[depth * self.size_um < _PIA_UM] = _NAMES.index("pia")
        labels[depth < 0] = _NAMES.index("outside")
        return labels

    def _draw_hippocampus(self, labels: NDArray[np.uint8], at: _Place) -> None:
        ammon, dentate = (
            anatomy.distance(line, at.u, at.w) for line in (anatomy.AMMON, anatomy.DENTATE)
        )
        around = (ammon < _AROUND_AMMON) | (dentate < _AROUND_DENTATE)
        labels[around] = _NAMES.index("hippocampal neuropil")
        labels[anatomy.in_hilus(at.u, at.w)] = _NAMES.index("hilus")
        pyramidal = ammon < self._half(_PYRAMIDAL_HALF)
        lower = at.w > anatomy.CA3_BELOW
        labels[pyramidal & ~lower] = _NAMES.index("CA1 pyramidal layer")
        labels[pyramidal & lower] = _NAMES.index("CA3 pyramidal layer")
        labels[dentate < self._half(_GRANULE_HALF)] = _NAMES.index("granule layer")

    def _half(self, layer: tuple[float, float, float]) -> float:
        """Return half a cell layer's thickness on the plan: its part, within limits in um."""
        part, least, most = layer
        return float(np.clip(part * self.size_um, least, most)) / self.size_um

    def vessel_distance(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Return the distance in um to the nearest vessel's axis, infinite where none is near."""
        winding = _distance_to_zero(self._capillary, x, y, z)
        winding = np.where(self._perfused(x, y, z) > 0, winding, np.inf)
        straight = _distance_to_zero(self._penetrating, x, y, z)
        in_cortex = self.depth(x, y, z) < _CORTEX_END * self.size_um
        return np.minimum(winding, np.where(in_cortex, straight, np.inf))

    def inward(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Return the angle (radians, from x towards y) in which the depth grows fastest."""
        dx, dy = gradient(self.depth, x, y, z)
        return np.arctan2(dy, dx)

    def from_dentate(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Return the angle (radians, from x towards y) that leads away from the dentate gyrus."""
        dx, dy = gradient(self._dentate_distance, x, y, z)
        return np.arctan2(dy, dx)

    def _dentate_distance(self, x: Floats, y: Floats, z: Floats) -> Floats:
        at = self._place(x, y, z)
        return anatomy.distance(anatomy.DENTATE, at.u, at.w) * self.size_um

    def vessel_course(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Return the angle (radians, from x towards y) along the nearest vessel."""
        straight = _distance_to_zero(self._penetrating, x, y, z)
        nearer = straight < _distance_to_zero(self._capillary, x, y, z)
        slopes = (gradient(wave, x, y, z) for wave in (self._penetrating, self._capillary))
        along, across = (np.arctan2(dy, dx) + np.pi / 2 for dx, dy in slopes)
        return np.where(nearer, along, across)

    def wall_course(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Return the angle (radians, from x towards y) along the nearest ventricle's wall."""
        dx, dy = gradient(self._wall_distance, x, y, z)
        return np.arctan2(dy, dx) + np.pi / 2

    def _wall_distance(self, x: Floats, y: Floats, z: Floats) -> Floats:
        at = self._place(x, y, z)
        return anatomy.ventricle_distance(at.u, at.w) * self.size_um


def _corner(rng: np.random.Generator, height: float, width: float) -> tuple[float, float]:
    """Return the plan's v and u + MIDLINE at the field's corner; sizes in parts of the plan."""
    (low_u, high_u), (low_v, high_v) = anatomy.FOCUS
    u, v = anatomy.MIDLINE + rng.uniform(low_u, high_u), rng.uniform(low_v, high_v)
    return (
        float(np.clip(v - height / 2, 0, max(anatomy.HEIGHT - height, 0))),
        float(np.clip(u - width / 2, 0, max(anatomy.WIDTH - width, 0))),
    )


def _distance_to_zero(field: Field, x: Floats, y: Floats, z: Floats) -> Floats:
    """Return the distance in um to where a field is zero, to first order."""
    value = field(x, y, z)
    return np.asarray(np.abs(value) / np.maximum(np.hypot(*gradient(field, x, y, z)), 1e-3))


def gradient(field: Field, x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats]:
    """Return the field's slopes along x and y, per um."""
    step = 1.0
    here = field(x, y, z)
    return (field(x + step, y, z) - here) / step, (field(x, y + step, z) - here) / step
