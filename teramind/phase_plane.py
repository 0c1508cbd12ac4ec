"""One slab and its frame while a phase runs: patches are encoded, shifted, decoded, taken on.

The state of a z-window is (stain z, y, x), in the type of the network's weights but never less
precise than float32. What a solver remembers from step to step lies behind it as more channels.
Patches that nobody needs stay NaN, so that reading one by mistake cannot pass unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teramind.diffusion import Step
from teramind.gene_features import GeneFeatures
from teramind.geometry import Rect
from teramind.network import Network
from teramind.network.fast import FastNetwork
from teramind.network.unet import Axes, Encoded, collage, combine
from teramind.solver import Solver

Progress = Callable[[int], None]
"""Is told the number of patches done since the last call."""

BATCH = 32
"""Patches that pass through the network together, at most."""


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
    def read(
        cls,
        network: Network | FastNetwork,
        solver: Solver,
        frame: Rect,
        bounds: Rect,
        *,
        state: ReadState,
        counts: Callable[[Rect], NDArray[np.unsignedinteger]],
    ) -> PhasePlane:
        """Fill a plane from the state before the phase and the counts of rectangles."""
        weight, whole = network.stem.weight, frame.grown(network.spec.half)
        inside = whole.cut(bounds)
        shape = (solver.planes * network.spec.channels, whole.height, whole.width)
        precise = torch.promote_types(weight.dtype, torch.float32)
        blank = weight.new_full(shape, -1, dtype=precise)
        blank[:, *inside.within(whole)] = torch.nan
        memory, before = blank.clone(), torch.from_numpy(state(inside))
        memory[: len(before), *inside.within(whole)] = before.to(memory)
        read = torch.from_numpy(counts(whole)[..., : network.spec.genes])
        return cls(network, solver, frame, blank=blank, memory=memory, counts=read)

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
            for cols in self._batches(wanted):
                features = shifted_row(
                    upper, lower, rank[row, cols], rank[row + 1, cols], network.axes
                )
                self._advance(new, row, cols, network.decode(features, time), step)
                if progress:
                    progress(len(cols))
            upper = lower
        self.memory = new

    def broken(self, mask: NDArray[np.bool_]) -> int:
        """How many of the patches in `mask` hold what is no number."""
        half, p = self.network.spec.half, self.network.spec.patch
        patches = self.memory[:, half:-half, half:-half].unflatten(2, (-1, p)).unflatten(1, (-1, p))
        whole = patches.isfinite().all(4).all(2).all(0).cpu().numpy()
        return int((mask & ~whole).sum())

    def _encode_row(self, row: int, wanted: NDArray[np.bool_], time: Tensor) -> Encoded:
        """Features of the wanted aligned patches of a row."""
        network, p = self.network, self.network.spec.patch
        state = self.memory[: network.spec.channels, row * p : (row + 1) * p].to(time)
        state = state.unflatten(2, (-1, p))  # (stain z, P, cols, P)
        encoded = []
        for cols in self._batches(wanted):
            chosen = torch.from_numpy(cols)
            pixels = state[:, :, chosen.to(self.device)].permute(2, 0, 1, 3)
            encoded.append(network.encode(pixels, self.genes(row, chosen, time), time))
        return combine(lambda *maps: torch.cat(maps, network.axes.patch), *encoded)

    def _batches(self, wanted: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
        """Columns of the wanted patches of a row, in batches of about one size."""
        cols = np.flatnonzero(wanted)
        return np.array_split(cols, max(-(-len(cols) // BATCH), 1))

    def _advance(
        self, new: Tensor, row: int, cols: NDArray[np.intp], noise: Tensor, step: Step
    ) -> None:
        """Write the next memory of shifted patches; `noise` is (n, stain z, P, P)."""
        p, half = self.network.spec.patch, self.network.spec.half
        chosen = torch.from_numpy(cols).to(self.device)

        def patches(memory: Tensor) -> Tensor:
            """The row's patches, (stain z, P, cols, P)."""
            y = half + row * p
            return memory[:, y : y + p, half:-half].unflatten(2, (-1, p))

        estimate = noise.to(new).permute(1, 2, 0, 3)
        before = patches(self.memory)[:, :, chosen]
        patches(new)[:, :, chosen] = self.solver.advance(before, estimate, step)


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
