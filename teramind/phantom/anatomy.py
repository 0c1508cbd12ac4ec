"""The plan of the section: where its structures lie, in parts of the section's size.

It is a dorsal part of a coronal half of the mouse brain at the level of the posterior thalamus: the
six layers of the cortex under the pia, the corpus callosum, the dorsal hippocampus with Ammon's
horn and the dentate gyrus, habenula and thalamus, the substantia nigra, the lateral and the third
ventricle (arranged as in G. Paxinos and K. Franklin, The Mouse Brain in Stereotaxic Coordinates).
It is a plan, not an atlas: cortex and hippocampus are drawn large beside what lies below them.

Coordinates: `u` grows from the midline to the side, `v` downwards, `w` is `v` below the curve of
the brain's surface. All are arrays that broadcast against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Points = Sequence[tuple[float, float]]

HEIGHT, WIDTH = 1.0, 1.3
"""Height and width of the plan."""

MIDLINE = 0.07
"""Where the midline lies; what is left of it belongs to the other half."""

FOCUS = ((0.36, 0.60), (0.40, 0.62))
"""Where (u, v) the middle of a field smaller than the plan lies: in and around the hippocampus."""

LAYERS: tuple[tuple[str, float], ...] = (
    ("L1", 0.040),
    ("L2/3", 0.115),
    ("L4", 0.165),
    ("L5", 0.245),
    ("L6", 0.320),
    ("white matter", 0.365),
)
"""The layers below the pia and the depth at which each ends."""

_SURFACE = 0.03
_FISSURE_END, _FISSURE_STEEPNESS, _ROUNDING = 0.30, 7.0, 0.07

AMMON: Points = (
    (0.13, 0.500), (0.22, 0.482), (0.33, 0.474), (0.45, 0.476), (0.57, 0.487), (0.68, 0.507),
    (0.77, 0.540), (0.835, 0.585), (0.855, 0.637), (0.825, 0.685), (0.755, 0.705),
    (0.670, 0.695), (0.59, 0.668), (0.53, 0.655),
)  # fmt: skip
"""The pyramidal layer (u, w) from the subiculum through CA1 and CA3 into the hilus."""

CA3_BELOW = 0.60
"""The `w` below which the pyramidal layer is CA3."""

_UPPER: Points = ((0.185, 0.640), (0.23, 0.617), (0.32, 0.601), (0.43, 0.596), (0.55, 0.604))
_LOWER: Points = ((0.185, 0.640), (0.22, 0.672), (0.31, 0.709), (0.42, 0.733), (0.54, 0.742))

DENTATE: Points = (*_UPPER[::-1], *_LOWER[1:])
"""The granule layer (u, w): the upper blade to the crest beside the midline, and the lower back."""

_LATERAL: Points = ((0.60, 0.412), (0.72, 0.432), (0.83, 0.475), (0.925, 0.545), (0.955, 0.63))
_LATERAL_HALF = 0.026
_THIRD: Points = ((0.0, 0.60), (0.0, 0.66), (0.0, 0.95))
_THIRD_HALF, _RECESS_HALF, _RECESS_UNTIL = 0.011, 0.030, 0.69

HABENULA = (0.075, 0.745, 0.042, 0.040)
THALAMUS = (0.0, 1.0, 0.80, 0.315)
NIGRA = (0.44, 0.925, 0.20, 0.042)
PEDUNCLE = (0.50, 1.01, 0.30, 0.055)
"""Ellipses: middle u, v and half axes."""


def bend(u: Floats) -> Floats:
    """Return how far the surface at `u` lies below its top."""
    return np.asarray(0.13 * u**2 + 0.13 * u**4)


def depth(u: Floats, v: Floats) -> Floats:
    """Return the depth below the pia: the outer surface, and the fissure on the midline.

    Below the fissure's end the layers thin out towards the callosum.
    """
    slope = 0.26 * u + 0.52 * u**3
    below = (v - _SURFACE - bend(u)) / np.sqrt(1 + slope**2)
    beside = np.hypot(u, _FISSURE_STEEPNESS * np.maximum(v - _FISSURE_END, 0)) - 0.006
    return _soft_minimum(below, beside)


def _soft_minimum(a: Floats, b: Floats) -> Floats:
    """Return the smaller of two, rounded off where they meet."""
    blend = np.clip(0.5 + 0.5 * (b - a) / _ROUNDING, 0, 1)
    return np.asarray(b + (a - b) * blend - _ROUNDING * blend * (1 - blend))


def distance(points: Points, u: Floats, w: Floats) -> Floats:
    """Return the distance to a line through `points`."""
    nearest = np.full(np.broadcast_shapes(u.shape, w.shape), np.inf, np.float32)
    for (u0, w0), (u1, w1) in pairwise(points):
        du, dw = u1 - u0, w1 - w0
        along = np.clip(((u - u0) * du + (w - w0) * dw) / (du**2 + dw**2), 0, 1)
        squared = (u - u0 - along * du) ** 2 + (w - w0 - along * dw) ** 2
        np.minimum(nearest, squared, out=nearest)
    return np.sqrt(nearest)


def ventricle_distance(u: Floats, w: Floats) -> Floats:
    """Return the distance to the wall of the nearest ventricle, negative inside."""
    recess = np.clip((_RECESS_UNTIL - w) / 0.05, 0, 1)
    third = _THIRD_HALF + (_RECESS_HALF - _THIRD_HALF) * recess
    return np.asarray(
        np.minimum(distance(_LATERAL, u, w) - _LATERAL_HALF, distance(_THIRD, u, w) - third)
    )


def in_hilus(u: Floats, w: Floats) -> NDArray[np.bool_]:
    """Return what lies between the blades of the dentate gyrus."""
    upper, lower = (np.interp(u, *np.transpose(blade)) for blade in (_UPPER, _LOWER))
    inside = (u > _UPPER[0][0]) & (u < _UPPER[-1][0] + 0.03)
    return np.asarray(inside & (w > upper) & (w < lower))


def in_ellipse(
    ellipse: tuple[float, float, float, float], u: Floats, v: Floats
) -> NDArray[np.bool_]:
    """Return what lies inside an ellipse."""
    middle_u, middle_v, half_u, half_v = ellipse
    return np.asarray(((u - middle_u) / half_u) ** 2 + ((v - middle_v) / half_v) ** 2 < 1)
