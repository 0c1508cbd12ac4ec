"""Whether the borders of patches or slabs show: steps across them against steps inside patches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from teramind.evaluate.blocks import Sums
from teramind.geometry import Rect


def border_sums(
    image: NDArray[np.uint8],
    rect: Rect,
    block: Rect,
    *,
    edge: int,
    origin: tuple[int, int],
    patch: int,
) -> Sums:
    """Squared steps between neighbouring pixels across borders and inside patches.

    Args:
        image: (y, x) pixels of `rect`.
        rect: where they lie.
        block: part of `rect` whose steps count: those that end in its pixels.
        edge: distance between borders in pixels.
        origin: y and x of one border, and of one of the patches.
        patch: edge of a patch. Inside is a quarter of it from its borders: as far from where it
            was cut half a patch off.

    Returns:
        (4,): sum and number of squared steps across borders, sum and number inside.
    """
    sums = np.zeros(4)
    rows, columns = block.within(rect)
    ends = image[:, columns], image[rows]
    for axis, (start, first) in enumerate(zip((rect.y, rect.x), origin, strict=True)):
        steps = np.diff(ends[axis].astype(np.float64), axis=axis) ** 2
        after = start + 1 + np.arange(steps.shape[axis]) - first  # pixel after the step
        quarter = (after % patch == patch // 4) | (after % patch == patch - patch // 4)
        for k, places in enumerate((after % edge == 0, quarter)):
            chosen = np.compress(places, steps, axis=axis)
            sums[2 * k : 2 * k + 2] += chosen.sum(), chosen.size
    return sums


def border_ratio(sums: Sums) -> float:
    """Mean squared step across borders over that inside patches; 1 where no border shows."""
    across, crossings, inside, places = sums
    if not crossings or not places or not inside:
        return float("nan")
    return float((across / crossings) / (inside / places))
