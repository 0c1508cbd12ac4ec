"""Measures as functions of sums over blocks, and what chance does to them.

Every measure here is computed from sums that add up over blocks of the plane: an area of any size
is read block by block, and drawing the blocks again with replacement gives an interval
(B. Efron, Annals of Statistics 7, 1979). Blocks are wider than the images' texture, so that
neighbouring ones count as independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from teramind.geometry import Rect

Sums = NDArray[np.float64]
Statistic = Callable[[Sums], float]
"""Sums of shape (..., k) -> a value; NaN where it is not defined."""

BLOCK = 64
"""Edge of a block in pixels."""

DRAWS = 400
"""How often the blocks are drawn again."""


class Estimate(NamedTuple):
    """A value, its 95 % interval (NaN where there are fewer than two blocks), blocks behind it."""

    value: float
    low: float
    high: float
    blocks: int


def estimate(sums: Sums, statistic: Statistic, *, seed: int = 0) -> Estimate:
    """Evaluate a statistic of summed blocks (n, k) and its bootstrap interval."""
    value = statistic(sums.sum(0))
    if len(sums) < 2:
        return Estimate(value, np.nan, np.nan, len(sums))
    rng = np.random.default_rng(seed)
    drawn = [statistic(sums[rng.integers(len(sums), size=len(sums))].sum(0)) for _ in range(DRAWS)]
    known = np.asarray(drawn)[np.isfinite(drawn)]
    low, high = np.quantile(known, (0.025, 0.975)) if len(known) else (np.nan, np.nan)
    return Estimate(value, float(low), float(high), len(sums))


def ratio(sums: Sums) -> float:
    """First sum over second: the mean, of (total, number)."""
    return float(sums[0] / sums[1]) if sums[1] else float("nan")


def blocks_of(rect: Rect, edge: int = BLOCK) -> Iterator[Rect]:
    """Cut a rectangle into blocks of `edge` pixels from its corner, the last ones smaller."""
    for y in range(rect.y, rect.bottom, edge):
        for x in range(rect.x, rect.right, edge):
            yield Rect(y, x, min(edge, rect.bottom - y), min(edge, rect.right - x))
