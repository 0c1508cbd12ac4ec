"""A section of a pathway's volume as averages over squares of bins, read band by band."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teramind.block_means import mean_bands
from teramind.volume import open_level

BAND = 128
"""Rows of bins read at a time."""

PLACE = 4
"""Bins along the edge of a place: with the published patches of 64 pixels, one patch."""

Floats = NDArray[np.float32]


def coarse_bands(volume: Path, z: int, factor: int) -> Iterator[Floats]:
    """Bands (channel, y, x) of section `z`, means of `factor` x `factor` bins.

    What the edge leaves of a square is averaged as it is. Memory: one band.
    """
    array = open_level(volume, 0)

    def rows(top: int, bottom: int) -> NDArray[Any]:
        return np.asarray(array[:, z, top:bottom])

    return mean_bands(rows, array.shape[2], factor, BAND)


def level(values: Floats, genes: int) -> Floats:
    """What the published figures show of attention: log2(value G + 1), G the network's genes."""
    return np.log2(values * np.float32(genes) + 1)


def meeting(counts: Floats) -> NDArray[np.bool_]:
    """Where at least two of a pathway's genes (gene, y, x) are: both, for the published pairs."""
    return np.asarray((counts > 0).sum(0) >= 2)
