"""Training, validation and test part of a plane: by region, never by random window.

Neighbouring pixels know of each other, so what judges a network must lie apart from what it
learned from. The plane is cut into blocks; a rectangle of them is the test part, single blocks are
the validation part, the rest trains. So does what a test part that is named by hand leaves of the
blocks that it touches. A guard band around test and validation blocks belongs to nobody.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from teramind.errors import UserError
from teramind.files import read_json, write_json
from teramind.geometry import BIN, EMPTY, Rect

MOST_BLOCKS = 500_000
"""A brain in blocks of 128 pixels has fewer."""

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Split:
    """The parts of a plane in pixels; `guard` is the width of the band around the last two."""

    plane: Rect
    guard: int
    train: tuple[Rect, ...]
    validation: tuple[Rect, ...]
    test: Rect | None

    def closed(self, part: Part) -> list[Rect]:
        """Rectangles that a window of `part` must not touch."""
        test = [self.test] if self.test else []
        if part == "test":
            return [*self.train, *self.validation]
        guarded = [rect.grown(self.guard) for rect in test]
        if part == "validation":
            return [*self.train, *guarded]
        return [*guarded, *(rect.grown(self.guard) for rect in self.validation)]

    def write(self, path: Path) -> None:
        """Write as JSON; rectangles are y, x, height, width."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Split:
        """Read what `write` wrote.

        Raises:
            UserError: when it is something else.
        """
        try:
            found = read_json(path)
            return cls(
                plane=Rect(*found["plane"]),
                guard=int(found["guard"]),
                train=tuple(Rect(*rect) for rect in found["train"]),
                validation=tuple(Rect(*rect) for rect in found["validation"]),
                test=Rect(*found["test"]) if found["test"] else None,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"split {path}: not readable ({error!r}); remove it") from None


def whole_plane(plane: Rect, test: Rect | None) -> Split:
    """All of the plane trains but a box named by hand; nothing validates."""
    return Split(plane=plane, guard=0, train=(plane,), validation=(), test=test)


def random_split(
    plane: Rect,
    *,
    block: int,
    guard: int,
    validation: float,
    test: float,
    seed: int,
    named: Rect | None = None,
) -> Split:
    """Assign blocks to parts, at random but for the seed.

    Args:
        plane: what is split, in pixels.
        block: edge of a block, about; blocks are evened out over the plane.
        guard: width of the band around test and validation blocks that trains nothing.
        validation: share of the blocks.
        test: share of the blocks; not used with `named`.
        seed: of the choice.
        named: the test part where it is named by hand.

    Raises:
        UserError: when a part would be empty, or the blocks are too many.
    """
    rng = random.Random(seed)
    rows, columns = _number(plane.height, block), _number(plane.width, block)
    if rows * columns > MOST_BLOCKS:
        raise UserError(
            f"reference.split.block: {block} pixels make {rows * columns:,} blocks; there may be "
            f"{MOST_BLOCKS:,}, so it must be larger"
        )
    grid = _grid(plane, block)
    blocks = [rect for row in grid for rect in row]
    box = named
    if box is None and test:
        tall, wide = _box(round(test * len(blocks)) or 1, rows, columns)
        top, left = rng.randrange(rows - tall + 1), rng.randrange(columns - wide + 1)
        first, last = grid[top][left], grid[top + tall - 1][left + wide - 1]
        box = Rect(first.y, first.x, last.bottom - first.y, last.right - first.x)
    free = [rect for rect in blocks if box is None or rect.cut(box) == EMPTY]
    number = max(round(validation * len(blocks)), 1) if validation else 0
    chosen = set(rng.sample(range(len(free)), min(number, len(free))))
    held = tuple(rect for i, rect in enumerate(free) if i in chosen)
    learned = tuple(rect for i, rect in enumerate(free) if i not in chosen)
    if not learned:
        raise UserError(
            f"reference.split: {len(blocks)} block(s) of {block} pixels on {plane.height} "
            f"x {plane.width} pixels leave none to train on; make block or the other parts smaller"
        )
    beside = tuple(part for rect in blocks if box for part in _beside(rect, rect.cut(box)))
    return Split(plane, guard, learned + beside, held, box)


def _beside(rect: Rect, box: Rect) -> Iterator[Rect]:
    """What a rectangle has around a box in it; nothing where the box is empty."""
    if box == EMPTY:
        return
    below, right = rect.bottom - box.bottom, rect.right - box.right
    for part in (
        Rect(rect.y, rect.x, box.y - rect.y, rect.width),
        Rect(box.bottom, rect.x, below, rect.width),
        Rect(box.y, rect.x, box.height, box.x - rect.x),
        Rect(box.y, box.right, box.height, right),
    ):
        if part.height and part.width:
            yield part


def _grid(plane: Rect, block: int) -> list[list[Rect]]:
    """Rows of blocks of nearly the same size, their inner edges on the bin grid."""
    ys, xs = _edges(plane.y, plane.height, block), _edges(plane.x, plane.width, block)
    return [
        [Rect(y, x, bottom - y, right - x) for x, right in pairwise(xs)]
        for y, bottom in pairwise(ys)
    ]


def _number(length: int, block: int) -> int:
    return max(round(length / block), 1)


def _edges(start: int, length: int, block: int) -> Sequence[int]:
    number = _number(length, block)
    inner = [start + round(i * length / number / BIN) * BIN for i in range(1, number)]
    return [start, *inner, start + length]


def _box(blocks: int, rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns of the rectangle of about `blocks` blocks that is nearest to a square."""
    tall = min(max(round(math.sqrt(blocks)), 1), rows)
    return tall, min(max(round(blocks / tall), 1), columns)
