"""Generate one slab for one phase, exactly as it would come out of the whole plane.

Here is decided which patches a phase must compute; `phase_plane` computes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from teramind.engine.noise import Noise
from teramind.engine.phase_plane import PhasePlane, Progress, ReadState
from teramind.engine.solver import SOLVERS, Solver, Step
from teramind.errors import UserError
from teramind.geometry import BIN, Layout, Rect, Slab
from teramind.network import Network
from teramind.network.fast import FastNetwork


class Expression(Protocol):
    """What generation reads of an expression raster."""

    def counts(self, *, sections: range, rect: Rect) -> NDArray[np.unsignedinteger]:
        """Counts (bin y, bin x, section, gene)."""

    def totals(self, *, section: int, rect: Rect) -> NDArray[np.int64]:
        """Molecules per bin (bin y, bin x)."""


@dataclass(frozen=True)
class Generator:
    """Everything that generation depends on besides the place.

    Attributes:
        network: in evaluation mode.
        expression: the raster.
        noise: initial noise.
        layout: bounds, region, windows, steps and phases.
        schedule: the sampling steps, `layout.steps` of them.
        margin: patches by which tissue is grown; what lies farther out is background.
        solver: takes the steps of `schedule`.
    """

    network: Network | FastNetwork
    expression: Expression
    noise: Noise
    layout: Layout
    schedule: list[Step]
    margin: int = 1
    solver: Solver = SOLVERS["published"]

    def needed(self, window: int, rect: Rect, reach: int) -> NDArray[np.bool_]:
        """Patches of `rect` that are needed `reach` steps before the end: (patch y, patch x).

        Those of the last step lie inside the region and within `margin` patches of tissue, which
        is any expression in the window's sections. Every step before needs one patch more around.
        """
        p = self.layout.patch
        around = rect.grown((reach + self.margin) * p)
        molecules = sum(
            self.expression.totals(section=section, rect=around)
            for section in self.layout.windows.expression(window)
        )
        bins = p // BIN
        rows, cols = around.height // p, around.width // p
        per_patch = np.reshape(molecules, (rows, bins, cols, bins)).sum(axis=(1, 3))
        tissue: NDArray[np.bool_] = per_patch > 0
        tissue = dilate(tissue, self.margin)
        tissue &= self._patches_inside(around, self.layout.region)
        wanted = dilate(tissue, reach) & self._patches_inside(around, self.layout.bounds)
        edge = reach + self.margin
        return wanted[edge : rows - edge, edge : cols - edge]

    def _patches_inside(self, rect: Rect, outer: Rect) -> NDArray[np.bool_]:
        """Which patches of `rect` lie in `outer`."""
        p = self.layout.patch
        y = rect.y + p * np.arange(rect.height // p)
        x = rect.x + p * np.arange(rect.width // p)
        rows = (y >= outer.y) & (y < outer.bottom)
        return rows[:, None] & ((x >= outer.x) & (x < outer.right))

    def work(self, slab: Slab, phase: int) -> int:
        """Patches that `run_phase` will take one step on, over all its steps."""
        return sum(int(mask.sum()) for mask in self.masks(slab, phase))

    def initial(self, window: int) -> ReadState:
        """The state before the first step, as a function of the rectangle."""
        sections = self.layout.windows.images(window)
        return lambda rect: self.noise(rect, sections).reshape(-1, rect.height, rect.width)

    @torch.inference_mode()
    def run_phase(
        self, slab: Slab, phase: int, read: ReadState, progress: Progress | None = None
    ) -> NDArray[np.floating]:
        """Take a slab through the steps of `phase`.

        Args:
            slab: which.
            phase: which.
            read: the state at the end of the phase before (or `initial`), asked for a rectangle
                inside the bounds; may hold NaN where no patch is needed.
            progress: is told of the patches done.

        Returns:
            State (stain z, y, x) of `layout.core(slab, phase)`, and behind it, unless this is the
            last phase, what the solver remembers: (planes stain z, y, x). NaN where not needed.

        Raises:
            UserError: when the network's estimates are no numbers.
        """
        steps, core = self.layout.phase_steps(phase), self.layout.core(slab, phase)
        windows = self.layout.windows
        plane = PhasePlane.read(
            self.network,
            self.solver,
            self.layout.computed(slab, phase),
            self.layout.bounds,
            state=read,
            counts=lambda rect: self.expression.counts(
                sections=windows.expression(slab.window), rect=rect
            ),
        )
        masks = self.masks(slab, phase)
        for step, mask in zip(steps, masks, strict=True):
            plane.denoise(mask, self.schedule[step], progress)
        if broken := plane.broken(masks[-1]):  # what is no number would pass for background
            raise UserError(
                f"slab {slab}: after phase {phase + 1}, {broken} of {masks[-1].sum()} patches hold "
                "what is no number; the checkpoint's weights are at fault"
            )
        last = phase == self.layout.phases - 1
        return plane.memory_of(core)[: self.network.spec.channels if last else None]

    def masks(self, slab: Slab, phase: int) -> list[NDArray[np.bool_]]:
        """Patches of `layout.computed` that each step of `phase` must compute."""
        steps, core = self.layout.phase_steps(phase), self.layout.core(slab, phase)
        grow, p = len(steps) - 1, self.layout.patch
        target = np.pad(self.needed(slab.window, core, self.layout.reach(phase)), grow)
        inside = self.layout.computed(slab, phase).within(core.grown(grow * p), step=p)
        return [dilate(target, steps.stop - 1 - step)[inside] for step in steps]


def dilate(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Grow a mask of patches by `reach` patches in all eight directions."""
    if reach == 0:
        return mask
    grown = mask.astype(np.uint8)
    for axis in (0, 1):
        grown = maximum_filter1d(grown, 2 * reach + 1, axis, mode="constant")
    return grown.astype(bool)
