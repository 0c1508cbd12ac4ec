"""Gene features of a slab's patches: they do not depend on the step, so they are kept."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teramind.network import Network
from teramind.network.fast import FastNetwork

GENE_BYTES = 2**30
"""Memory for what is kept; what has no room is computed again at every step."""


class GeneFeatures:
    """Features of aligned patches from their counts, kept from step to step while there is room.

    Threads may ask side by side; one of them keeps.

    Args:
        network: computes them.
        counts: (bin y, bin x, S, G) of whole patches.
    """

    def __init__(self, network: Network | FastNetwork, counts: Tensor) -> None:
        self.network, bins = network, network.spec.bins
        self.counts = counts.unflatten(1, (-1, bins)).unflatten(0, (-1, bins))
        self.place = np.full((self.counts.shape[0], self.counts.shape[2]), -1)
        self.kept: list[Tensor] = []
        self.used = 0

    def __call__(self, places: NDArray[np.intp], like: Tensor) -> list[Tensor]:
        """Features of patches, (2, n) rows and columns, at levels 0..3, in the type of `like`."""
        rows, cols = places
        known = self.place[rows, cols]
        if self.kept and (known >= 0).all():
            return self._recall(known)
        counts = self.counts[rows, :, cols].to(like)  # (n, bins, bins, S, G)
        return self.network.genes(counts)

    def _recall(self, known: NDArray[np.intp]) -> list[Tensor]:
        axis = self.network.axes.patch
        chosen = torch.from_numpy(known).to(self.kept[0].device)
        return [level.index_select(axis, chosen) for level in self.kept]

    def keep(self, places: NDArray[np.intp], features: list[Tensor]) -> None:
        """Keep the features of those `places` that are not yet, if there is room for all."""
        which = np.flatnonzero(self.place[*places] < 0)
        axis = self.network.axes.patch
        if not self.kept and len(which):
            one = sum(level.nbytes for level in features) // features[0].shape[axis]
            room = min(GENE_BYTES // one, self.place.size)
            self.kept = [
                level.new_empty(*level.shape[:axis], room, *level.shape[axis + 1 :])
                for level in features
            ]
        if not len(which) or self.used + len(which) > self.kept[0].shape[axis]:
            return
        chosen = torch.from_numpy(which).to(features[0].device)
        for kept, level in zip(self.kept, features, strict=True):
            new = level.index_select(axis, chosen)
            kept.narrow(axis, self.used, len(which)).copy_(new)
        self.place[*places[:, which]] = self.used + np.arange(len(which))
        self.used += len(which)
