"""How many patches pass through the network, slab by slab, without running it.

The counts are those of `Generator.run_phase`: where everything is wanted they follow from
rectangles, where there is background from chessboard distances to the wanted patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_cdt

from teramind.geometry import EMPTY, Layout, Rect, Slab
from teramind.plan.tissue import Mask

Counts = NDArray[np.int64]
_FAR = np.iinfo(np.int32).max


@dataclass(frozen=True)
class PhaseWork:
    """The jobs of one phase.

    Attributes:
        rows: rows of the grid of slabs.
        cols: its columns.
        decoded: decoder passes, that is patches taken one step on: (window, row, column), or, once
            stacked, (stack, row, column).
        encoded: encoder passes, likewise.
        pixels: pixels of the slab's core in all its windows, likewise.
    """

    rows: range
    cols: range
    decoded: Counts
    encoded: Counts
    pixels: Counts

    def stacked(self, stack: int) -> PhaseWork:
        """The jobs where a slab holds so many windows."""
        first = range(0, len(self.decoded), stack)
        counts = (self.decoded, self.encoded, self.pixels)
        return PhaseWork(self.rows, self.cols, *(np.add.reduceat(n, first) for n in counts))


def wanted_work(layout: Layout, wanted: Sequence[Mask] | None) -> int:
    """Patches wanted times steps: what a sampler without frames or slabs would have to do."""
    p = layout.patch
    if wanted is None:
        patches = layout.region.area // p**2 * len(layout.windows)
    else:
        patches = sum(int(mask.sum()) for mask in wanted)
    return patches * layout.steps


def drawn_slabs(layout: Layout, wanted: Sequence[Mask] | None) -> int:
    """Sections times slabs that hold anything but background."""
    last, drawn = layout.phases - 1, 0
    for slab in layout.slabs(last):
        place = layout.core(slab, last).within(layout.bounds, step=layout.patch)
        for window in layout.windows_of(slab):
            if wanted is None or wanted[window][place].any():
                drawn += len(layout.windows.kept(window))
    return drawn


def phase_work(layout: Layout, phase: int, wanted: Sequence[Mask] | None) -> PhaseWork:
    """Count the work of every slab of a phase, each window as if alone.

    Args:
        layout: region, slabs, steps and phases.
        phase: which.
        wanted: from `wanted_patches`; None where all of the region is.
    """
    rows, cols = layout.grid(phase)
    heights = [layout.core(Slab(0, row, cols[0]), phase) for row in rows]
    widths = [layout.core(Slab(0, rows[0], col), phase) for col in cols]
    pixels = np.outer([core.height for core in heights], [core.width for core in widths])
    windows = len(layout.windows)
    if wanted is None:
        decoded, encoded = _rectangles(layout, phase, heights, widths)
        decoded, encoded = (np.broadcast_to(n, (windows, *n.shape)) for n in (decoded, encoded))
    else:
        both = np.zeros((2, windows, len(rows), len(cols)), np.int64)
        for window, mask in enumerate(wanted):
            needed = _distance(mask) <= layout.reach(phase)
            for i, row in enumerate(rows):
                for j, col in enumerate(cols):
                    slab = Slab(window, row, col)
                    both[:, window, i, j] = _masked(layout, slab, phase, needed)
        decoded, encoded = both
    return PhaseWork(rows, cols, decoded, encoded, np.broadcast_to(pixels, decoded.shape))


def _rectangles(
    layout: Layout, phase: int, heights: list[Rect], widths: list[Rect]
) -> tuple[Counts, Counts]:
    """Decoder and encoder passes (row, column) where all is wanted: areas of grown cores."""
    p, steps = layout.patch, len(layout.phase_steps(phase))
    grown = range(steps)
    tall = np.array(
        [[c.grown(k * p).cut(layout.bounds).height // p for k in grown] for c in heights], np.int64
    )
    wide = np.array(
        [[c.grown(k * p).cut(layout.bounds).width // p for k in grown] for c in widths], np.int64
    )
    return tall @ wide.T, (tall + 1) @ (wide + 1).T


def _masked(layout: Layout, slab: Slab, phase: int, needed: Mask) -> tuple[int, int]:
    """Decoder and encoder passes of one slab; `needed` is what its phase must leave behind."""
    p, grow = layout.patch, len(layout.phase_steps(phase)) - 1
    core, computed = layout.core(slab, phase), layout.computed(slab, phase)
    if core == EMPTY:
        return 0, 0
    target = np.zeros((computed.height // p, computed.width // p), bool)
    target[core.within(computed, step=p)] = needed[core.within(layout.bounds, step=p)]
    away = np.pad(_distance(target), 1, constant_values=_FAR)
    rows = np.minimum(away[1:], away[:-1])
    corners = np.minimum(rows[:, 1:], rows[:, :-1])  # of the four around an aligned patch
    return _steps(away, grow), _steps(corners, grow)


def _steps(away: NDArray[np.int32], grow: int) -> int:
    """Passes of all patches: one `grow` patches away takes part in one step, a wanted one in all.

    `away` is in patches from the nearest wanted one.
    """
    return int((grow + 1 - away[away <= grow]).sum())


def _distance(mask: Mask) -> NDArray[np.int32]:
    """Patches from each patch to the nearest one of `mask`, in king's moves."""
    if not mask.any():
        return np.full(mask.shape, _FAR, np.int32)
    return np.asarray(distance_transform_cdt(~mask, metric="chessboard"), np.int32)
