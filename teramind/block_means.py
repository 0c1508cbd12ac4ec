"""Small pictures of large arrays: means of squares of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def block_means(band: NDArray[Any], factor: int) -> NDArray[np.float32]:
    """Means of `factor` x `factor` blocks, or of what the edge leaves of them: (..., y, x)."""
    means: NDArray[Any] = band
    for axis in (-2, -1):
        starts = np.arange(0, means.shape[axis], factor)
        lengths = np.diff(starts, append=means.shape[axis])
        means = np.add.reduceat(means, starts, axis, dtype=np.float64)  # the band stays as small
        means /= lengths[:, None] if axis == -2 else lengths
    return means.astype(np.float32)
