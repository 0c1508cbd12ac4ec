"""Whether two images are bright in the same places, after smoothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from teramind.evaluate.blocks import Sums

Floats = NDArray[np.float32]

REACH = 4.0
"""Standard deviations after which a Gaussian ends."""

FLAT = 1e-5
"""An image that varies by less than this part of its size is constant up to rounding."""


def smooth(image: NDArray[Any], sigma_px: float) -> Floats:
    """Smooth an image (y, x) by normalised convolution: what lies beyond it has no weight."""
    smoothed = gaussian_filter(image.astype(np.float32), sigma_px, mode="constant", truncate=REACH)
    for axis, length in enumerate(image.shape):
        weight = gaussian_filter(
            np.ones(length, np.float32), sigma_px, mode="constant", truncate=REACH
        )
        smoothed /= np.expand_dims(weight, 1 - axis)
    return np.asarray(smoothed, np.float32)


def pair_sums(a: NDArray[Any], b: NDArray[Any]) -> Sums:
    """Sums of a pair of images from which `correlation` is computed, (6,)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.array([a.size, a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum()])


def correlation(sums: Sums) -> float:
    """Pearson's correlation from `pair_sums`; NaN where one image is constant."""
    n, a, b, aa, bb, ab = sums
    spreads = aa - a * a / n, bb - b * b / n
    if any(s <= FLAT**2 * whole for s, whole in zip(spreads, (aa, bb), strict=True)):
        return float("nan")
    return float((ab - a * b / n) / np.sqrt(spreads[0] * spreads[1]))
