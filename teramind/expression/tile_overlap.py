"""Whether overlapping tiles agree: a misnamed tile holds other molecules than its neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from teramind.errors import UserError
from teramind.expression.source import Molecules
from teramind.expression.tile_file import FRAME, Position, TileFile

_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing
_HALF = np.uint64(32)


class Overlaps:
    """Compares every tile with those read before it; tiles must come row by row.

    Every quarter tile (128 x 128 pixels) lies under up to four tiles. A fingerprint of its
    molecules is kept from the first of them until the rows that reach it are done.
    """

    def __init__(self) -> None:
        self.differing = 0
        self._known: dict[Position, tuple[int, TileFile]] = {}
        self._row: int | None = None

    def compare(
        self, tile: TileFile, place: Position, channel: NDArray[np.int64], framed: Molecules
    ) -> None:
        """Take in a tile's molecules, in pixels of its frame, `channel` on its last axis.

        Quarter tiles on which it differs from a tile before are counted in `differing`.

        Raises:
            UserError: when it differs on most of those where either has molecules.
        """
        self._forget(place[0])
        top, left = 2 * place[0] - 1, 2 * place[1] - 1
        compared = differing = 0
        other = tile
        for (i, j), value in np.ndenumerate(fingerprints(channel, framed)):
            found = int(value)
            before, by = self._known.setdefault((top + i, left + j), (found, tile))
            if by is not tile and (found or before):
                compared += 1
            if found != before:
                differing, other = differing + 1, by
        self.differing += differing
        if differing > compared / 2:
            raise UserError(
                f"{tile}: its frame holds other molecules than {other} at the same pixels:"
                " one of the two is misnamed"
            )

    def _forget(self, row: int) -> None:
        """Drop what no tile from `row` on reaches."""
        if row != self._row:
            self._row = row
            self._known = {q: known for q, known in self._known.items() if q[0] >= 2 * row - 1}


def fingerprints(channel: NDArray[np.int64], framed: Molecules) -> NDArray[np.uint64]:
    """Return (4, 4): per quarter tile of the frame a number that depends on all its molecules.

    The sum of count times a hash of (channel, y, x), so the order of the entries does not matter
    and entries of the same place add up; 0 where there are none.
    """
    inner = (channel * FRAME + framed.y % FRAME) * FRAME + framed.x % FRAME
    code = (inner.astype(np.uint64) + np.uint64(1)) * _MIX
    code = (code ^ code >> _HALF) * _MIX
    sums = np.zeros((4, 4), np.uint64)
    quarter = framed.y // FRAME * 4 + framed.x // FRAME
    np.add.at(sums.reshape(-1), quarter, (code ^ code >> _HALF) * framed.count.astype(np.uint64))
    return sums
