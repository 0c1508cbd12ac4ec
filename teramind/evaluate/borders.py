"""Whether the borders of patches or slabs show: steps across them against steps beside them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from teramind.evaluate.blocks import Sums
from teramind.geometry import Rect


def border_sums(
    image: NDArray[np.uint8], rect: Rect, *, edge: int, origin: tuple[int, int]
) -> Sums:
    """Squared steps between neighbouring pixels across borders, and a quarter of a cell beside.

    Args:
        image: (y, x) pixels of `rect`.
        rect: where they lie.
        edge: distance between borders in pixels.
        origin: y and x of one border.

    Returns:
        (4,): sum and number of squared steps across borders, sum and number beside.
    """
    sums = np.zeros(4)
    for axis, (start, first) in enumerate(zip((rect.y, rect.x), origin, strict=True)):
        steps = np.diff(image.astype(np.float64), axis=axis) ** 2
        after = (start + 1 + np.arange(steps.shape[axis]) - first) % edge  # pixel after the step
        for k, places in enumerate(
            (after == 0, (after == edge // 4) | (after == edge - edge // 4))
        ):
            chosen = np.compress(places, steps, axis=axis)
            sums[2 * k : 2 * k + 2] += chosen.sum(), chosen.size
    return sums


def border_ratio(sums: Sums) -> float:
    """Mean squared step across borders over that beside them; 1 where no border shows."""
    across, crossings, beside, places = sums
    if not crossings or not places or not beside:
        return float("nan")
    return float((across / crossings) / (beside / places))
