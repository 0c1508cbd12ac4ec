"""What expression alone says of an image: molecule density, and a linear regression on genes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from teramind.expression.raster import Raster
from teramind.geometry import BIN, EMPTY, Rect

Floats = NDArray[np.float32]

TILE = 64 * BIN
"""Edge of what is read at once while fitting, in pixels."""

RIDGE = 1e-3
"""Part of the mean square of the counts added to each gene's, for a stable solution."""


def density(raster: Raster, section: int, rect: Rect) -> Floats:
    """Molecules of all genes per bin on the pixels (y, x) of `rect`."""
    around = rect.rounded_out(BIN)
    return _on_pixels(raster.totals(section=section, rect=around), around, rect)


def _on_pixels(bins: NDArray[Any], around: Rect, rect: Rect) -> Floats:
    pixels = bins.astype(np.float32).repeat(BIN, axis=0).repeat(BIN, axis=1)
    return pixels[rect.within(around)]


class Regression(NamedTuple):
    """Grey level of each stain as a linear function of a bin's counts: (G + 1, stains)."""

    weights: NDArray[np.float64]

    def predict(self, raster: Raster, section: int, rect: Rect, stain: int) -> Floats:
        """Predicted grey levels on the pixels (y, x) of `rect`."""
        around = rect.rounded_out(BIN)
        inputs = _inputs(raster, section, around)
        shape = around.height // BIN, around.width // BIN
        return _on_pixels((inputs @ self.weights[:, stain]).reshape(shape), around, rect)


def fit_regression(
    raster: Raster, images: zarr.Array[Any], holdout: Rect | None
) -> Regression | None:
    """Fit by least squares on every whole bin of every section outside the holdout.

    Args:
        raster: expression.
        images: (c, z, y, x) uint8 on the raster's plane.
        holdout: what the fit must not see.

    Returns:
        The fit; None where the holdout leaves nothing to fit.
    """
    stains, sections, height, width = images.shape
    bounds = raster.bounds.rounded_out(BIN)  # around them lies what is only read
    shared = Rect(0, 0, height, width).cut(raster.extent).cut(bounds)
    whole = shared._replace(
        height=shared.height - shared.height % BIN, width=shared.width - shared.width % BIN
    )
    genes = len(raster.panel) + 1
    squares, products = np.zeros((genes, genes)), np.zeros((genes, stains))
    for section in range(min(sections, raster.sections)):
        for tile in whole.blocks(TILE):
            inputs = _inputs(raster, section, tile)
            pixels = images[:, section, *tile.slices]
            split = np.asarray(pixels, np.float64).reshape(
                stains, tile.height // BIN, BIN, tile.width // BIN, BIN
            )
            wanted = split.mean((2, 4)).reshape(stains, -1).T
            kept = _outside(tile, holdout)
            squares += inputs[kept].T @ inputs[kept]
            products += inputs[kept].T @ wanted[kept]
    if not squares[-1, -1]:
        return None
    ridge = RIDGE * np.trace(squares[:-1, :-1]) / max(genes - 1, 1)
    penalty = np.append(np.full(genes - 1, ridge), 1e-9)
    return Regression(np.asarray(np.linalg.solve(squares + np.diag(penalty), products), np.float64))


def _inputs(raster: Raster, section: int, rect: Rect) -> NDArray[np.float64]:
    """Counts of each bin and a constant, (bins, G + 1)."""
    counts = raster.counts(sections=[section], rect=rect)[:, :, 0].astype(np.float64)
    flat = counts.reshape(-1, counts.shape[-1])
    return np.concatenate([flat, np.ones((len(flat), 1))], 1)


def _outside(tile: Rect, holdout: Rect | None) -> NDArray[np.bool_]:
    """Which bins of a tile, row-major, do not touch the holdout."""
    if holdout is None:
        return np.ones(tile.area // BIN**2, bool)
    return np.array([block.cut(holdout) == EMPTY for block in tile.blocks(BIN)])
