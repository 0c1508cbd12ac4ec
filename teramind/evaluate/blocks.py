"""Measures as functions of sums over blocks, and what chance does to them.

Every measure here is computed from sums that add up over blocks of the plane: an area of any size
is read block by block, and drawing its parts again with replacement gives an interval
(B. Efron, Annals of Statistics 7, 1979). That takes the parts for independent, so they are wide
against any smoothing and as large as leaves enough of them. Tissue that changes over a part's width
or more makes the interval too narrow all the same: it knows of chance within the area, not of
other animals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from teramind.geometry import Rect

Key = TypeVar("Key")
Sums = NDArray[np.float64]
Statistic = Callable[[Sums], float]
"""Sums of shape (k,) -> a value; NaN where it is not defined."""

BLOCK = 64
"""Edge of a block in pixels."""

PART_UM = 25.0
"""Smallest edge of a part: several nuclei, or two wavelengths of the images' texture."""

ENOUGH_PARTS = 30
"""From this number on, parts are made larger rather than more numerous. At most four times as many
are kept, which bounds the memory, whatever the area."""

FEWEST_PARTS = 16
"""With fewer, drawing them again says nothing of chance."""

DRAWS = 400
"""How often the parts are drawn again."""


class Estimate(NamedTuple):
    """A value, its 95 % interval (NaN where there are fewer than 16 parts), parts behind it."""

    value: float
    low: float
    high: float
    parts: int


def estimate(sums: Sums, statistic: Statistic) -> Estimate:
    """Evaluate a statistic of summed parts (n, k) and its bootstrap interval (seeded)."""
    n = len(sums)
    value = statistic(sums.sum(0))
    if n < FEWEST_PARTS:
        return Estimate(value, np.nan, np.nan, n)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=DRAWS)
    values = np.array([statistic(total) for total in drawn @ sums])
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, (0.025, 0.975)) if len(known) else (np.nan, np.nan)
    return Estimate(value, float(low), float(high), n)


class Tally(Generic[Key]):
    """Sums by part of an area, of any number of things; memory does not grow with the area.

    Args:
        area: what the parts make up.
        least: smallest edge of a part, in pixels.
    """

    def __init__(self, area: Rect, least: float) -> None:
        self._area, self._edge = area, _part_edge(area, least)
        self._of: dict[Key, dict[tuple[int, int], Sums]] = defaultdict(dict)

    def add(self, key: Key, block: Rect, sums: Sums) -> None:
        """Add the sums of a block of the area."""
        y, x = block.y - self._area.y, block.x - self._area.x
        parts, place = self._of[key], (y // self._edge, x // self._edge)
        parts[place] = parts[place] + sums if place in parts else sums

    def estimates(self, statistic: Statistic) -> Iterator[tuple[Key, Estimate]]:
        """The same statistic of everything that was added."""
        for key in self._of:
            yield key, self.estimate(key, statistic)

    def estimate(self, key: Key, statistic: Statistic) -> Estimate:
        """A statistic of one thing; without a single block it is undefined."""
        if not self._of[key]:
            return Estimate(np.nan, np.nan, np.nan, 0)
        return estimate(np.stack(list(self._of[key].values())), statistic)


def _part_edge(area: Rect, least: float) -> int:
    """The largest doubling of a block, from `least` on, that leaves `ENOUGH_PARTS` of an area."""
    edge = doubled_block(least)
    while -(-area.height // (2 * edge)) * -(-area.width // (2 * edge)) >= ENOUGH_PARTS:
        edge *= 2
    return edge


def doubled_block(least: float) -> int:
    """The smallest doubling of a block's edge from `least` pixels on."""
    edge = BLOCK
    while edge < least:
        edge *= 2
    return edge


def ratio(sums: Sums) -> float:
    """First sum over second: the mean, of (total, number)."""
    return float(sums[0] / sums[1]) if sums[1] else float("nan")
