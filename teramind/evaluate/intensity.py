"""Whether two images have the same grey levels and the same texture."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft2, fftfreq
from scipy.stats import wasserstein_distance

from teramind.evaluate.blocks import Statistic, Sums

LEVELS = 256

BANDS_UM = (2.0, 4.0, 8.0, 16.0, 32.0)
"""Edges of the bands of wavelengths in um."""


def histogram(image: NDArray[np.uint8]) -> Sums:
    """How many pixels have each grey level, (256,)."""
    return np.bincount(image.ravel(), minlength=LEVELS).astype(float)


def wasserstein(sums: Sums) -> float:
    """Mean distance in grey levels that turns the first histogram into the second (2 x 256,)."""
    a, b = sums[:LEVELS], sums[LEVELS:]
    if not a.sum() or not b.sum():
        return float("nan")
    levels = np.arange(LEVELS)
    return float(wasserstein_distance(levels, levels, a, b))


def mean(sums: Sums) -> float:
    """Mean grey level of a `histogram`."""
    return float(np.average(np.arange(LEVELS), weights=sums))


def deviation(sums: Sums) -> float:
    """Standard deviation of the grey levels of a `histogram`."""
    return float(np.sqrt(np.average((np.arange(LEVELS) - mean(sums)) ** 2, weights=sums)))


def spectrum_sums(image: NDArray[Any], pixel_size_um: float) -> Sums:
    """Power of a square block in each band of wavelengths, (bands,).

    The block is windowed (Hann) and averaged over directions; its mean has no part in it.
    """
    edge = len(image)
    window = np.hanning(edge)
    centred = (image - image.mean()) * window[:, None] * window
    power = np.abs(fft2(centred)) ** 2
    along = fftfreq(edge, pixel_size_um)
    frequency = np.hypot(along[:, None], along)
    edges = 1 / np.array(BANDS_UM)
    return np.array(
        [power[(frequency <= high) & (frequency > low)].sum() for high, low in pairwise(edges)]
    )


def log_power_ratio(band: int) -> Statistic:
    """Log10 of the first image's power over the second's, of sums (2 x bands,)."""
    bands = len(BANDS_UM) - 1

    def log_ratio(sums: Sums) -> float:
        a, b = sums[band], sums[bands + band]
        return float(np.log10(a / b)) if a > 0 and b > 0 else float("nan")

    return log_ratio
