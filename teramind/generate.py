"""Generate one slab for one phase, exactly as it would come out of the whole plane.

The state of a z-window is (stain z, y, x), in the type of the network's weights but never less
precise than float32. What a solver remembers from step to step lies behind it as more channels.
Patches that nobody needs stay NaN, so that reading one by mistake cannot pass unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from torch import Tensor

from teramind.diffusion import Step
from teramind.geometry import BIN, Layout, Rect, Slab
from teramind.network import Network
from teramind.network.fast import FastNetwork
from teramind.network.unet import Axes, Encoded, collage, combine
from teramind.noise import Noise
from teramind.solver import SOLVERS, Solver

Progress = Callable[[int], None]
"""Is told the number of patches done since the last call."""

BATCH = 32
"""Patches that pass through the network together."""

GENE_BYTES = 2**30
"""Memory for gene features, which do not depend on the step; what has no room is recomputed."""


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
        solver: how a step is taken; `schedule` is its.
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
        """
        steps, core = self.layout.phase_steps(phase), self.layout.core(slab, phase)
        plane = PhasePlane.read(self, self.frame(slab, phase), slab.window, read)
        for step, mask in zip(steps, self.masks(slab, phase), strict=True):
            plane.denoise(mask, self.schedule[step], progress)
        last = phase == self.layout.phases - 1
        return plane.memory_of(core)[: self.network.spec.channels if last else None]

    def frame(self, slab: Slab, phase: int) -> Rect:
        """The slab and what the steps of `phase` compute around it, inside the bounds."""
        grow = len(self.layout.phase_steps(phase)) - 1
        core = self.layout.core(slab, phase)
        return core.grown(grow * self.layout.patch).cut(self.layout.bounds)

    def masks(self, slab: Slab, phase: int) -> list[NDArray[np.bool_]]:
        """Patches of the frame that each step of `phase` must compute."""
        steps, core = self.layout.phase_steps(phase), self.layout.core(slab, phase)
        p = self.layout.patch
        grow, frame = len(steps) - 1, self.frame(slab, phase)
        target = np.pad(self.needed(slab.window, core, self.layout.reach(phase)), grow)
        rows, cols = frame.within(core.grown(grow * p))
        inside = slice(rows.start // p, rows.stop // p), slice(cols.start // p, cols.stop // p)
        return [dilate(target, steps.stop - 1 - step)[inside] for step in steps]


class ReadState(Protocol):
    """A source of states."""

    def __call__(self, rect: Rect) -> NDArray[np.floating]:
        """State (stain z, y, x) of a rectangle inside the bounds."""


class PhasePlane:
    """Memory and counts of one slab with its frame, held while its phase runs.

    Args:
        network: gives the sizes and the device.
        solver: takes the steps.
        frame: the rectangle whose patches may be denoised.
        blank: (planes stain z, y, x) of `frame` and half a patch around it: -1 beyond the bounds,
            NaN inside them.
        memory: the same with the state, and what the solver remembers, inside the bounds.
        counts: (bin y, bin x, S, G) of the same pixels.
    """

    def __init__(
        self,
        network: Network | FastNetwork,
        solver: Solver,
        frame: Rect,
        *,
        blank: Tensor,
        memory: Tensor,
        counts: Tensor,
    ) -> None:
        self.network, self.solver, self.frame = network, solver, frame
        self.blank, self.memory = blank, memory
        self.genes = GeneFeatures(network, counts)
        self.device = blank.device

    @classmethod
    def read(cls, generator: Generator, frame: Rect, window: int, read: ReadState) -> PhasePlane:
        """Fill a plane from the raster and the state before the phase."""
        network, layout, weight = generator.network, generator.layout, generator.network.stem.weight
        whole = frame.grown(network.spec.half)
        inside = whole.cut(layout.bounds)
        shape = (generator.solver.planes * network.spec.channels, whole.height, whole.width)
        precise = torch.promote_types(weight.dtype, torch.float32)
        blank = weight.new_full(shape, -1, dtype=precise)
        blank[:, *inside.within(whole)] = torch.nan
        memory, before = blank.clone(), torch.from_numpy(read(inside))
        memory[: len(before), *inside.within(whole)] = before.to(memory)
        sections = layout.windows.expression(window)
        counts = generator.expression.counts(sections=sections, rect=whole)
        read_genes = torch.from_numpy(counts[..., : network.spec.genes])
        return cls(network, generator.solver, frame, blank=blank, memory=memory, counts=read_genes)

    def memory_of(self, rect: Rect) -> NDArray[np.floating]:
        """State, and what the solver remembers, of a rectangle inside the frame."""
        whole = self.frame.grown(self.network.spec.half)
        return self.memory[:, *rect.within(whole)].cpu().numpy()

    def denoise(self, mask: NDArray[np.bool_], step: Step, progress: Progress | None) -> None:
        """Take the patches in `mask` (patch y, patch x of the frame) one step on.

        Aligned patches are encoded once each, row by row; two rows of features are held.
        """
        new = self.blank.clone()
        if not mask.any():
            self.memory = new
            return
        network = self.network
        time = network.embed_time(torch.tensor([step.t], device=self.device))
        aligned = touched(mask)
        rank = np.cumsum(aligned, axis=1) - 1  # where an aligned patch stands among its row's
        upper = self._encode_row(0, aligned[0], time)
        for row, wanted in enumerate(mask):
            lower = self._encode_row(row + 1, aligned[row + 1], time)
            for start in range(0, wanted.sum(), BATCH):
                cols = np.flatnonzero(wanted)[start : start + BATCH]
                features = shifted_row(
                    upper, lower, rank[row, cols], rank[row + 1, cols], network.axes
                )
                self._advance(new, row, cols, network.decode(features, time), step)
                if progress:
                    progress(len(cols))
            upper = lower
        self.memory = new

    def _encode_row(self, row: int, wanted: NDArray[np.bool_], time: Tensor) -> Encoded:
        """Features of the wanted aligned patches of a row."""
        network, p = self.network, self.network.spec.patch
        cols = torch.from_numpy(np.flatnonzero(wanted))
        state = self.memory[: network.spec.channels, row * p : (row + 1) * p].to(time)
        state = state.unflatten(2, (-1, p))  # (stain z, P, cols, P)
        encoded = []
        for chosen in cols.split(BATCH):
            pixels = state[:, :, chosen.to(self.device)].permute(2, 0, 1, 3)
            encoded.append(network.encode(pixels, self.genes(row, chosen, time), time))
        return combine(lambda *maps: torch.cat(maps, network.axes.patch), *encoded)

    def _advance(
        self, new: Tensor, row: int, cols: NDArray[np.intp], noise: Tensor, step: Step
    ) -> None:
        """Write the next memory of shifted patches; `noise` is (n, stain z, P, P)."""
        p, half = self.network.spec.patch, self.network.spec.half
        for estimate, col in zip(noise.to(new), cols, strict=True):
            y, x = half + row * p, half + int(col) * p
            place = (slice(None), slice(y, y + p), slice(x, x + p))
            new[place] = self.solver.advance(self.memory[place], estimate, step)


class GeneFeatures:
    """Features of aligned patches from their counts, kept from step to step while there is room.

    Args:
        network: computes them.
        counts: (bin y, bin x, S, G) of whole rows of patches.
    """

    def __init__(self, network: Network | FastNetwork, counts: Tensor) -> None:
        self.network, self.counts, self.room = network, counts, GENE_BYTES
        self.kept: dict[tuple[int, int], list[Tensor]] = {}

    def __call__(self, row: int, cols: Tensor, like: Tensor) -> list[Tensor]:
        """Features of some patches of a row, levels 0..3; computed in the type of `like`."""
        kept = [self.kept[row, col] for col in cols.tolist() if (row, col) in self.kept]
        if kept and len(kept) == len(cols):
            return self._join(kept)
        bins = self.network.spec.bins
        counts = self.counts[row * bins : (row + 1) * bins].unflatten(1, (-1, bins))
        features = self.network.genes(counts[:, cols].movedim(1, 0).to(like))
        self._keep(row, cols, features)
        return features

    def _keep(self, row: int, cols: Tensor, features: list[Tensor]) -> None:
        size = sum(level.nbytes for level in features)
        if len(cols) and size <= self.room:
            self.room -= size
            axis = self.network.axes.patch
            for one, *levels in zip(
                cols.tolist(), *(f.split(1, axis) for f in features), strict=True
            ):
                self.kept[row, one] = levels

    def _join(self, patches: list[list[Tensor]]) -> list[Tensor]:
        return [torch.cat(level, self.network.axes.patch) for level in zip(*patches, strict=True)]


def dilate(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Grow a mask of patches by `reach` patches in all eight directions."""
    if reach == 0:
        return mask
    grown = mask.astype(np.uint8)
    for axis in (0, 1):
        grown = maximum_filter1d(grown, 2 * reach + 1, axis, mode="constant")
    return grown.astype(bool)


def touched(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Aligned patches that the shifted patches of `mask` are made of: one row and column more."""
    rows, cols = mask.shape
    aligned = np.zeros((rows + 1, cols + 1), bool)
    for dy in (0, 1):
        for dx in (0, 1):
            aligned[dy : dy + rows, dx : dx + cols] |= mask
    return aligned


def shifted_row(
    upper: Encoded,
    lower: Encoded,
    above: NDArray[np.intp],
    below: NDArray[np.intp],
    axes: Axes,
) -> Encoded:
    """Features of shifted patches between two rows of aligned ones.

    `above` and `below` (n,) say where the left patch of each stands in its row; the right one
    follows it.
    """
    device = upper.middle.device
    left, right = (torch.from_numpy(np.stack([above, below]) + i).to(device) for i in (0, 1))

    def shift(over: Tensor, under: Tensor) -> Tensor:
        top_left, top_right = (over.index_select(axes.patch, side[0]) for side in (left, right))
        low_left, low_right = (under.index_select(axes.patch, side[1]) for side in (left, right))
        return collage(top_left, top_right, low_left, low_right, axes)

    return combine(shift, upper, lower)
