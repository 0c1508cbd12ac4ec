"""One slab and its frame while a phase runs: patches are encoded, shifted, decoded, taken on.

On a CPU the batches of a band are computed side by side, one by each of torch's threads.

The state of a z-window is (stain z, y, x), in the type of the network's weights but never less
precise than float32. What a solver remembers from step to step lies behind it as more channels.
Patches that nobody needs stay NaN, so that reading one by mistake cannot pass unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teramind.engine.gene_features import GeneFeatures
from teramind.engine.solver import Solver, Step
from teramind.engine.workers import Map, side_by_side
from teramind.geometry import Rect
from teramind.network import Network
from teramind.network.fast import FastNetwork
from teramind.network.unet import Axes, Encoded, collage, combine, quarter

Progress = Callable[[int], None]
"""Is told the number of patches done since the last call."""

BATCH = 32
"""Patches that pass through the network at a time, about so many of all threads together."""

Places = NDArray[np.intp]
"""Rows and columns of n patches, (2, n), row by row."""


class ReadState(Protocol):
    """A source of states."""

    def __call__(self, rect: Rect) -> NDArray[np.floating]:
        """State (stain z, y, x) of a rectangle inside the bounds."""


class PhasePlane:
    """Memory and counts of one slab with its frame, held while its phase runs.

    Args:
        network: gives the sizes and the device.
        solver: takes the steps.
        computed: the rectangle whose patches may be denoised.
        blank: (planes stain z, y, x) of `computed` and half a patch around it: -1 beyond the
            bounds, NaN inside them.
        memory: the same with the state, and what the solver remembers, inside the bounds.
        counts: (bin y, bin x, S, G) of the same pixels.
    """

    def __init__(
        self,
        network: Network | FastNetwork,
        solver: Solver,
        computed: Rect,
        *,
        blank: Tensor,
        memory: Tensor,
        counts: Tensor,
    ) -> None:
        self.network, self.solver, self.computed = network, solver, computed
        self.blank, self.memory = blank, memory
        self.genes = GeneFeatures(network, counts)
        self.device = blank.device
        self.threads = torch.get_num_threads() if blank.is_cpu else 1

    @classmethod
    def read(
        cls,
        network: Network | FastNetwork,
        solver: Solver,
        computed: Rect,
        bounds: Rect,
        *,
        state: ReadState,
        counts: Callable[[Rect], NDArray[np.unsignedinteger]],
    ) -> PhasePlane:
        """A plane with the state before the phase and the counts, each read by rectangle."""
        weight, whole = network.stem.weight, computed.grown(network.spec.half)
        inside = whole.cut(bounds)
        before = torch.from_numpy(state(inside))  # what it is read from goes before planes come
        shape = (solver.planes * network.spec.channels, whole.height, whole.width)
        precise = torch.promote_types(weight.dtype, torch.float32)
        blank = weight.new_full(shape, -1, dtype=precise)
        blank[:, *inside.within(whole)] = torch.nan
        memory = blank.clone()
        memory[: len(before), *inside.within(whole)] = before.to(memory)
        read = torch.from_numpy(counts(whole)[..., : network.spec.genes])
        return cls(network, solver, computed, blank=blank, memory=memory, counts=read)

    def memory_of(self, rect: Rect) -> NDArray[np.floating]:
        """State, and what the solver remembers, of a rectangle inside `computed`."""
        whole = self.computed.grown(self.network.spec.half)
        return self.memory[:, *rect.within(whole)].cpu().numpy()

    def denoise(self, mask: NDArray[np.bool_], step: Step, progress: Progress | None) -> None:
        """Take the patches in `mask` (patch y, patch x of `computed`) one step on.

        Aligned patches are encoded once each, in bands of a few rows; the features of two bands
        are held.
        """
        new = self.blank.clone()
        if not mask.any():
            self.memory = new
            return
        network, height = self.network, band_height(mask.shape[1] + 1)
        time = network.embed_time(torch.tensor([step.t], device=self.device))
        aligned = touched(mask)
        with side_by_side(self.threads) as each:
            upper = self._encode_band(aligned[:1], 0, time, each)
            for top in range(0, len(mask), height):
                lower = self._encode_band(aligned[top + 1 : top + 1 + height], top + 1, time, each)
                # Not named, for what holds both bands must be gone before the next is encoded.
                for patches in each(
                    partial(self._take, new, upper, lower, top, time, step),
                    batches(mask[top : top + height], self.threads),
                ):
                    if progress:
                        progress(patches)
                upper = lower
        self.memory = new

    def broken(self, mask: NDArray[np.bool_]) -> int:
        """How many of the patches in `mask` hold what is no number."""
        half = self.network.spec.half
        patches = self._patches(self.memory[:, half:-half, half:-half])
        whole = patches.isfinite().all(4).all(2).all(0).cpu().numpy()
        return int((mask & ~whole).sum())

    def _encode_band(self, wanted: NDArray[np.bool_], top: int, time: Tensor, each: Map) -> Band:
        """Features of the wanted aligned patches of some rows, the first of them `top`."""
        network = self.network
        pixels = self._patches(self.memory[: network.spec.channels])

        def encode(places: Places) -> tuple[Encoded, list[Tensor]]:
            rows, cols = torch.from_numpy(places).to(self.device)
            state = pixels[:, rows, :, cols].to(time)  # (n, stain z, P, P)
            genes = self.genes(places, time)
            return network.encode(state, genes, time), genes

        parts = batches(wanted, self.threads) or [np.zeros((2, 0), np.intp)]
        chosen, encoded = [lowered(places, top) for places in parts], []
        for places, (features, genes) in zip(chosen, each(encode, chosen), strict=True):
            self.genes.keep(places, genes)  # not in the threads: who came first must not matter
            encoded.append(features)
        whole = encoded[0]
        if len(encoded) > 1:
            whole = combine(lambda *maps: torch.cat(maps, network.axes.patch), *encoded)
        return Band(whole, np.cumsum(wanted).reshape(wanted.shape) - 1)

    def _take(
        self,
        new: Tensor,
        upper: Band,
        lower: Band,
        top: int,
        time: Tensor,
        step: Step,
        places: Places,
    ) -> int:
        """Take patches between two bands, counted from row `top`, one step on; say how many."""
        features = shifted(upper, lower, places, self.network.axes)
        self._advance(new, lowered(places, top), self.network.decode(features, time), step)
        return places.shape[1]

    def _advance(self, new: Tensor, places: Places, noise: Tensor, step: Step) -> None:
        """Write the next memory of shifted patches; `noise` is (n, stain z, P, P)."""
        half = self.network.spec.half
        rows, cols = torch.from_numpy(places).to(self.device)
        before, after = (
            self._patches(memory[:, half:-half, half:-half]) for memory in (self.memory, new)
        )
        chosen = before[:, rows, :, cols].transpose(0, 1)  # (planes stain z, n, P, P)
        advanced = self.solver.advance(chosen, noise.to(new).transpose(0, 1), step)
        after[:, rows, :, cols] = advanced.transpose(0, 1)

    def _patches(self, memory: Tensor) -> Tensor:
        """A view of whole patches (planes stain z, row, P, col, P)."""
        p = self.network.spec.patch
        return memory.unflatten(2, (-1, p)).unflatten(1, (-1, p))


class Band(NamedTuple):
    """Features of the aligned patches of some rows.

    Attributes:
        features: of the wanted ones, row by row.
        rank: which of them a patch is, (row, col).
    """

    features: Encoded
    rank: NDArray[np.intp]


def band_height(cols: int) -> int:
    """Rows of `cols` patches that are worked on together: narrow slabs fill batches by several."""
    return max(BATCH // cols, 1)


def batches(wanted: NDArray[np.bool_], threads: int = 1) -> list[Places]:
    """The wanted patches of some rows, in batches of about one size, as many for each thread."""
    places = np.stack(np.nonzero(wanted))
    count = min(-(-places.shape[1] // BATCH) * threads, places.shape[1])
    return np.array_split(places, count, axis=1) if count else []


def lowered(places: Places, top: int) -> Places:
    """Places whose rows are counted from row `top` on, counted from row 0."""
    rows, cols = places
    return np.stack([rows + top, cols])


def shifted(upper: Band, lower: Band, places: Places, axes: Axes) -> Encoded:
    """Features of shifted patches.

    Args:
        upper: ends with the row of aligned patches above the first row of shifted ones.
        lower: the rows below it.
        places: rows, counted from the first that lies between the two bands, and columns.
        axes: of the features.
    """
    rows, cols = places
    first = int(np.searchsorted(rows, 1))  # so many lie in the first row
    device = lower.features.middle.device

    def index(band: Band, y: int, x: int, part: slice) -> Tensor:
        chosen = band.rank[rows[part] + y, cols[part] + x]
        return torch.from_numpy(chosen).to(device)

    above = [index(upper, -1, x, slice(first)) for x in (0, 1)]
    inside = [index(lower, -1, x, slice(first, None)) for x in (0, 1)]
    below = [index(lower, 0, x, slice(None)) for x in (0, 1)]

    def shift(over: Tensor, under: Tensor) -> Tensor:
        def corner(y: int, x: int) -> Tensor:
            if y:
                return quarter(under, y, x, axes).index_select(axes.patch, below[x])
            parts = [(over, above[x]), (under, inside[x])]
            chosen = [
                quarter(maps, y, x, axes).index_select(axes.patch, which)
                for maps, which in parts
                if len(which)
            ]
            return torch.cat(chosen, axes.patch) if len(chosen) > 1 else chosen[0]

        return collage(corner, axes)

    return combine(shift, upper.features, lower.features)


def touched(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Aligned patches that the shifted patches of `mask` are made of: one row and column more."""
    rows, cols = mask.shape
    aligned = np.zeros((rows + 1, cols + 1), bool)
    for dy in (0, 1):
        for dx in (0, 1):
            aligned[dy : dy + rows, dx : dx + cols] |= mask
    return aligned
