"""Gene features of a slab's patches: they do not depend on the step, so they are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from teramind.network import Network
from teramind.network.fast import FastNetwork

GENE_BYTES = 2**30
"""Memory for what is kept; what has no room is computed again at every step."""


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
