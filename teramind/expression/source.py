"""What every reader of expression data offers, whatever the format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from teramind.geometry import Rect

_FAR = float(1 << 40)


@dataclass(frozen=True)
class Molecules:
    """A chunk of molecules: equal-length arrays; pixels of the plane, `gene` a panel index."""

    section: NDArray[np.int64]
    y: NDArray[np.int64]
    x: NDArray[np.int64]
    gene: NDArray[np.int64]
    count: NDArray[np.int64]

    def take(self, kept: NDArray[np.bool_]) -> Molecules:
        """Return the entries where `kept` is true."""
        return Molecules(**{name: values[kept] for name, values in vars(self).items()})


class Source(Protocol):
    """A data set that can be read in chunks once its gene names are matched to a panel."""

    @property
    def molecules(self) -> Mapping[str, int]:
        """Molecules per source gene name: names known before `read`, numbers after it."""

    @property
    def extent(self) -> Rect:
        """The smallest rectangle of pixels that holds the data."""

    def read(self, index: Mapping[str, int]) -> Iterator[Molecules]:
        """Yield the molecules of the source genes in `index`, which maps them to panel indices."""


def to_pixels(
    coordinate: NDArray[np.float64], *, origin: float, pixel_size: float
) -> NDArray[np.int64]:
    """Return floor((coordinate - origin) / pixel_size); values beyond 2^40 pixels stop there."""
    return np.floor(np.clip((coordinate - origin) / pixel_size, -_FAR, _FAR)).astype(np.int64)


def spanned(
    low: tuple[float, float],
    high: tuple[float, float],
    *,
    origin: tuple[float, float],
    pixel_size: float,
) -> Rect:
    """Return the pixels from the lowest to the highest coordinates, all given as (y, x)."""
    (top, bottom), (left, right) = (
        to_pixels(np.array([low[axis], high[axis]]), origin=origin[axis], pixel_size=pixel_size)
        for axis in (0, 1)
    )
    return Rect(int(top), int(left), int(bottom - top) + 1, int(right - left) + 1)
