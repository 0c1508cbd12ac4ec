"""Are the borders between slabs visible? The seam numbers of all receipts in one view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from teramind.files import read_json

WORST = 5
"""Slabs listed by name."""

VISIBLE = 1.2
"""Ratio from which an eye may find the border."""

_BARS = 24


@dataclass(frozen=True)
class Seam:
    """One slab: mean grey-level steps across its borders and inside it, and their ratio."""

    slab: str
    border: float
    inside: float
    pixels: int

    @property
    def ratio(self) -> float:
        """Step at the border over step inside; 1 is a border like any other place."""
        return self.border / self.inside


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram: count of slabs with a ratio in [low, high)."""

    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Seams:
    """All slabs together, weighted by the pixels compared, and the worst of them."""

    slabs: int
    compared: int
    border: float
    inside: float
    worst: tuple[Seam, ...]
    bars: tuple[Bar, ...]

    @property
    def ratio(self) -> float:
        """Overall step at borders over step inside."""
        return self.border / self.inside

    @property
    def verdict(self) -> str:
        """Say in words what the overall ratio means."""
        if self.ratio < VISIBLE:
            return "steps at slab borders are like steps anywhere else, so no seams should show"
        return "steps at slab borders are larger than elsewhere, so seams may show"


def read_seams(receipts: Sequence[Path]) -> Seams | None:
    """Read the seam numbers of all receipts; None where no slab has a border to compare."""
    seams = [seam for path in sorted(receipts) if (seam := _read(path))]
    if not seams:
        return None
    weights = [seam.pixels for seam in seams]
    return Seams(
        slabs=len(receipts),
        compared=len(seams),
        border=float(np.average([seam.border for seam in seams], weights=weights)),
        inside=float(np.average([seam.inside for seam in seams], weights=weights)),
        worst=tuple(sorted(seams, key=lambda seam: -seam.ratio)[:WORST]),
        bars=_histogram([seam.ratio for seam in seams]),
    )


def _read(path: Path) -> Seam | None:
    receipt = read_json(path)
    seams = receipt["seams"]
    if seams["border"] is None or not seams["inside"] or not seams["pixels"]:
        return None
    return Seam(receipt["slab"], seams["border"], seams["inside"], seams["pixels"])


def _histogram(ratios: Sequence[float]) -> tuple[Bar, ...]:
    """Return bars over a range that always shows 1; none for too few slabs to make a shape."""
    if len(ratios) < _BARS // 2:
        return ()
    low, high = min(0.8, *ratios), max(1.2, *ratios)
    counts, edges = np.histogram(ratios, bins=_BARS, range=(low, high))
    return tuple(
        Bar(float(left), float(right), int(count))
        for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True)
    )
