"""Attention maps of a pathway at bin resolution: what a bin's molecules weigh under attention.

With A restricted to the pathway's genes and N their counts per bin of a section, a map is A N:
"down" with A of the section and the one below, "up" with the one above, "all" with A of the whole
window; "counts" is N itself (arXiv 2503.01220).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teramind.attention.pathways import map_kinds
from teramind.network import NetworkSpec


class PathwayMaps:
    """The maps of one pathway on a rectangle of aligned patches, filled batch by batch.

    Args:
        spec: the network's sizes.
        places: the pathway's genes on the panel.
        rows: aligned patches down.
        cols: aligned patches across.
        matrix_rows: the genes whose rows of the matrices `add` is given.
    """

    def __init__(
        self, spec: NetworkSpec, places: Sequence[int], rows: int, cols: int, matrix_rows: Tensor
    ) -> None:
        self.spec, self.places = spec, torch.tensor(list(places))
        self.own = torch.searchsorted(matrix_rows, self.places)
        self.kinds = map_kinds(spec.sections)
        channels = len(self.kinds) * len(places)
        self.shape = (channels, spec.images, rows, spec.bins, cols, spec.bins)
        self.maps = np.zeros(self.shape, np.float32)

    def add(self, row: int, cols: Tensor, counts: Tensor, matrices: Sequence[Tensor]) -> None:
        """Fill in some patches of a row.

        Args:
            row: which row of patches.
            cols: (n,) columns.
            counts: (n, G, S, bins, bins) of these patches.
            matrices: one (n, R, G) per entry of `kept_sections`, for the genes `matrix_rows`.
        """
        genes, first = len(self.places), self.spec.first_image
        chosen = [m[:, self.own][:, :, self.places] for m in matrices]  # (n, g, g)
        for k in range(self.spec.images):
            molecules = counts[:, self.places, first + k]  # (n, g, bins, bins)
            of_kind = {"all": chosen[-1]}
            if len(chosen) > 1:
                of_kind |= {"down": chosen[k], "up": chosen[k + 1]}
            for place, kind in enumerate(self.kinds):
                values = molecules
                if kind != "counts":
                    values = torch.einsum("ngh,nhyx->ngyx", of_kind[kind], molecules)
                target = self.maps[place * genes : (place + 1) * genes, k, row]
                target[:, :, cols.numpy()] = values.permute(1, 2, 0, 3).cpu().numpy()

    def inner(self) -> NDArray[np.float32]:
        """Maps (channel, z, bin y, bin x) without the outer half patch on every side."""
        channels, sections, rows, bins, cols, _ = self.shape
        half = bins // 2
        whole = self.maps.reshape(channels, sections, rows * bins, cols * bins)
        return whole[:, :, half:-half, half:-half]
