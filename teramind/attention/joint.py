"""Expression against attention, place by place: regressions and densities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teramind.attention.coarse import PLACE, coarse_bands, level, meeting
from teramind.evaluate.blocks import PART_UM, Sums, Tally
from teramind.evaluate.structure import correlation, pair_sums
from teramind.geometry import BIN, Rect
from teramind.volume import VolumeLayout, volume_layout

BLOCK = 4
"""Places along the edge of a block, whose values are drawn again together for intervals."""

STEP = 0.05
"""Width of a histogram's cell, in units of log2."""

CELLS = (240, 480)
"""Cells of expression (up to 12) and of attention (up to 24)."""


def slope(sums: Sums) -> float:
    """Slope of the regression of the second on the first, from `pair_sums`."""
    n, a, b, aa, _, ab = sums
    spread = aa - a * a / n
    return float((ab - a * b / n) / spread) if spread > 1e-9 * aa else float("nan")


def intercept(sums: Sums) -> float:
    """Value of the regression where the first is 0."""
    n, a, b, *_ = sums
    return float((b - slope(sums) * a) / n)


@dataclass(frozen=True)
class Joint:
    """Expression against attention of one pathway over all sections.

    Attributes:
        genes: the pathway's.
        densities: places per cell (gene, expression, attention), see `STEP`.
        tally: `pair_sums` of expression and attention by gene and block.
        colours: RRGGBB of each gene.
    """

    genes: tuple[str, ...]
    densities: NDArray[np.int64]
    tally: Tally[str]
    colours: tuple[str, ...]

    def regressions(self) -> dict[str, dict[str, Any]]:
        """For each gene correlation, slope, intercept, the first two with 95 % intervals."""
        return {gene: self._regression(gene) for gene in self.genes}

    def _regression(self, gene: str) -> dict[str, Any]:
        r, b = (self.tally.estimate(gene, of) for of in (correlation, slope))
        zero = self.tally.estimate(gene, intercept).value
        numbers = {
            **{"r": r.value, "r_low": r.low, "r_high": r.high},
            **{"slope": b.value, "slope_low": b.low, "slope_high": b.high, "intercept": zero},
        }
        known = {k: round(v, 6) if np.isfinite(v) else None for k, v in numbers.items()}
        return {"places": int(self.densities[self.genes.index(gene)].sum()), **known}


def read_joint(volume: Path, network_genes: int) -> Joint:
    """Read a pathway's volume once, band by band.

    Expression is log2(N + 1) of a gene's molecules per bin; attention is log2(A G + 1), A the
    "all" maps of the pathway's genes added up, G the network's genes: both means over a place of
    `PLACE` x `PLACE` bins, and only where at least two of the genes are. Memory: a band.
    """
    layout = volume_layout(volume)
    genes, kinds = tuple(layout.attributes["genes"]), tuple(layout.attributes["kinds"])
    area = Rect(0, 0, layout.shape[2] * BIN, layout.shape[3] * BIN)
    joint = Joint(
        genes,
        np.zeros((len(genes), *CELLS), np.int64),
        Tally(area, PART_UM * BIN / layout.pixel_size_um),
        layout.colours[: len(genes)],
    )
    for top, band in _blocks_of_rows(volume, layout):
        maps = dict(zip(kinds, np.split(band, len(kinds)), strict=True))
        counts = np.log2(maps["counts"] + 1)
        there = meeting(maps["counts"])
        attention = level(maps["all"].sum(0), network_genes)
        for left in range(0, band.shape[2], BLOCK):
            cols = slice(left, left + BLOCK)
            chosen = there[:, cols]
            if not chosen.any():
                continue
            y = attention[:, cols][chosen]
            edge = PLACE * BIN
            block = Rect(top * edge, left * edge, BLOCK * edge, BLOCK * edge)
            for g, gene in enumerate(genes):
                x = counts[g][:, cols][chosen]
                joint.tally.add(gene, block, pair_sums(x, y))
                np.add.at(joint.densities[g], (_cell(x, CELLS[0]), _cell(y, CELLS[1])), 1)
    return joint


def _blocks_of_rows(
    volume: Path, layout: VolumeLayout
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (first row of places, `BLOCK` rows of places) of all sections."""
    for z in range(layout.shape[1]):
        top = 0
        for band in coarse_bands(volume, z, PLACE):
            for row in range(0, band.shape[1], BLOCK):
                yield top + row, band[:, row : row + BLOCK]
            top += band.shape[1]


def _cell(values: NDArray[np.float32], cells: int) -> NDArray[np.int64]:
    return np.minimum((values / STEP).astype(np.int64), cells - 1)
