"""Sums of attention matrices over the patches of a slab: by section, and by parts of regions.

A part is a square of patches, the same whatever the slabs; its patches in one region are a unit,
whose label `pairs` permutes. Sums lie in a file as (entry, G, G) float32, sections first, and are
added to there, so that memory does not grow with the number of units. Beside each stand the
molecules of every gene in its patches: a gene without any attends and is attended to all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from teramind.attention.regions import OUTSIDE, Regions
from teramind.geometry import Layout, Rect

MOST_PARTS = 256
"""Parts of the plane at most: bounds what is kept per region, whatever the plane."""


class Unit(NamedTuple):
    """Patches of one part of the plane that lie in one region."""

    row: int
    col: int
    label: int


def part_edge(region: Rect, patch: int) -> int:
    """Patches along a part: the smallest doubling of 2 that gives at most `MOST_PARTS` parts."""
    rows, cols = -(-region.height // patch), -(-region.width // patch)
    edge = 2
    while -(-rows // edge) * -(-cols // edge) > MOST_PARTS:
        edge *= 2
    return edge


class PatchUnits:
    """Which unit every patch of a slab belongs to, section by section.

    A patch lies where its centre lies, and belongs to the slab that holds it.
    """

    def __init__(
        self, layout: Layout, rect: Rect, sections: Sequence[int], regions: Regions | None
    ) -> None:
        p, edge = layout.patch, part_edge(layout.region, layout.patch)
        rows, cols = rect.height // p, rect.width // p
        y, x = rect.y + p * np.arange(rows), rect.x + p * np.arange(cols)
        part_y = (y - layout.region.y) // (p * edge)
        part_x = (x - layout.region.x) // (p * edge)
        self.units: dict[Unit, int] = {}
        self.place = np.full((len(sections), rows, cols), OUTSIDE, np.int64)
        for k, section in enumerate(sections if regions else ()):
            assert regions is not None
            labels = regions.labels(section, y, x)
            for i, j in np.argwhere(labels != OUTSIDE):
                unit = Unit(int(part_y[i]), int(part_x[j]), int(labels[i, j]))
                self.place[k, i, j] = self.units.setdefault(unit, len(self.units))


class MatrixSums:
    """Adds up matrices in a file.

    Args:
        path: .npy file to make.
        units: of the slab's patches.
        genes: G.
    """

    def __init__(self, path: Path, units: PatchUnits, genes: int) -> None:
        self.units, self.sections = units, len(units.place)
        entries = self.sections + len(units.units)
        shape = (entries, genes, genes)
        self.sums = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        self.of_section = np.zeros((self.sections, genes, genes))
        self.patches = np.zeros(entries, np.int64)
        self.molecules = np.zeros((entries, genes), np.int64)

    def add(self, row: int, cols: NDArray[np.int64], molecules: Tensor, matrices: Tensor) -> None:
        """Add some patches of a row.

        Args:
            row: which row of patches.
            cols: (n,) columns, inside the slab.
            molecules: (n, Z, G) in each section; a patch counts where it has any.
            matrices: (n, G, G).
        """
        for k in range(self.sections):
            own = molecules[:, k]
            there = own.any(1).numpy()
            self.of_section[k] += matrices[there].double().sum(0).numpy()
            self._count(k, own[there])
            places = self.units.place[k, row, cols]
            for place in np.unique(places[there & (places != OUTSIDE)]):
                mine = there & (places == place)
                self.sums[self.sections + place] += matrices[mine].sum(0).numpy()
                self._count(self.sections + place, own[mine])

    def _count(self, entry: int, molecules: Tensor) -> None:
        """Add patches to an entry by their molecules (n, G)."""
        self.patches[entry] += len(molecules)
        self.molecules[entry] += molecules.long().sum(0).numpy()

    def finish(self, sections: Sequence[int], regions: Regions | None) -> list[dict[str, Any]]:
        """Write what is left; return what each entry is the sum of."""
        self.sums[: self.sections] = self.of_section
        self.sums.flush()
        entries: list[dict[str, Any]] = [{"section": section} for section in sections]
        for row, col, label in self.units.units:
            assert regions is not None
            entries.append({"part": [row, col], "region": regions.name(label)})
        counts = zip(self.patches.tolist(), self.molecules.tolist(), strict=True)
        return [
            entry | {"patches": patches, "molecules": molecules}
            for entry, (patches, molecules) in zip(entries, counts, strict=True)
        ]
