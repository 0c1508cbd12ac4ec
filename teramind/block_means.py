"""Small pictures of large arrays: means of squares of pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST = 1200
"""Longest edge of a picture in its own pixels."""

Rows = Callable[[int, int], NDArray[Any]]
"""Reads the rows [top, bottom) of planes, (..., y, x)."""


def mean_bands(
    rows: Rows, height: int, factor: int, band: int = 512
) -> Iterator[NDArray[np.float32]]:
    """Yield `block_means` of `height` rows from top to bottom, some `band` rows at a time."""
    step = max(band // factor, 1) * factor
    for top in range(0, height, step):
        yield block_means(rows(top, min(top + step, height)), factor)


def block_means(band: NDArray[Any], factor: int) -> NDArray[np.float32]:
    """Means of `factor` x `factor` blocks, or of what the edge leaves of them: (..., y, x)."""
    means: NDArray[Any] = band
    for axis in (-2, -1):
        starts = np.arange(0, means.shape[axis], factor)
        lengths = np.diff(starts, append=means.shape[axis])
        means = np.add.reduceat(means, starts, axis, dtype=np.float64)  # the band stays as small
        means /= lengths[:, None] if axis == -2 else lengths
    return means.astype(np.float32)
