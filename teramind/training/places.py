"""Where training windows may lie: corners on the bin grid that keep off what is closed to them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from teramind.geometry import BIN, Rect


class Places:
    """Top-left corners of square windows, numbered row by row.

    Memory: a byte per bin of the plane, 27 MB for 100,000 x 70,000 pixels.

    Args:
        area: the images, in pixels; its corner lies on the bin grid.
        size: edge of a window in pixels.
        margin: how far a window may reach beyond the area, a multiple of a bin.
        closed: rectangles that no window touches.
    """

    def __init__(self, area: Rect, *, size: int, margin: int, closed: Iterable[Rect] = ()) -> None:
        self.size = size
        self._origin = area.y - margin, area.x - margin
        lengths = (area.height + 2 * margin, area.width + 2 * margin)
        self._free = np.ones([max((n - size) // BIN + 1, 0) for n in lengths], bool)
        for rect in closed:
            rows = self._touching(rect.y - self._origin[0], rect.height)
            columns = self._touching(rect.x - self._origin[1], rect.width)
            self._free[rows, columns] = False
        self._ends = np.cumsum(self._free.sum(1))

    def _touching(self, start: int, length: int) -> slice:
        """Grid indices of windows that share pixels with [start, start + length)."""
        first = (start - self.size) // BIN + 1
        return slice(max(first, 0), max(-(-(start + length) // BIN), 0))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, number: int) -> tuple[int, int]:
        """Corner (y, x) of a window in pixels of the plane."""
        row = int(np.searchsorted(self._ends, number, side="right"))
        before = int(self._ends[row - 1]) if row else 0
        column = int(np.flatnonzero(self._free[row])[number - before])
        return self._origin[0] + row * BIN, self._origin[1] + column * BIN
