"""Small pictures of large arrays: averaged band by band, coloured, encoded for a web page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from teramind.block_means import Rows, mean_bands
from teramind.expression.raster import Raster
from teramind.geometry import BIN, Rect
from teramind.volume import stain_colour

COLOURS = colormaps["magma"]
"""Perceptually uniform, black where there is nothing."""

_QUALITY = 88

Floats = NDArray[np.float32]
Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """An encoded picture and what it shows, for those who cannot see it."""

    uri: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Grid:
    """Picture pixels of `factor` x `factor` plane pixels over `rect`; the last may be cut off."""

    rect: Rect
    factor: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in picture pixels."""
        return -(-self.rect.height // self.factor), -(-self.rect.width // self.factor)

    def centres(self, axis: int) -> NDArray[np.int64]:
        """Middle of each picture pixel along `axis` (0 is y), in plane pixels from the edge."""
        middles = np.arange(self.shape[axis]) * self.factor + self.factor // 2
        return np.minimum(middles, self.rect[2 + axis] - 1)


def averaged(rows: Rows, height: int, factor: int) -> Floats:
    """Average `factor` x `factor` blocks, or what the edge leaves of them, of `height` rows.

    Rows are asked for a band at a time, so memory is a band and the result.
    """
    return np.concatenate(list(mean_bands(rows, height, factor)))


def bin_means(raster: Raster, section: int, grid: Grid) -> Floats:
    """Return molecules per bin under each picture pixel's centre, (y, x).

    Where picture pixels are larger than bins, bins are averaged first, in blocks no smaller than
    those. Memory: a band of bins and the result.
    """
    bins = -(-grid.factor // BIN)
    around = grid.rect.rounded_out(bins * BIN)

    def rows(top: int, bottom: int) -> NDArray[np.int64]:
        band = Rect(around.y + top * BIN, around.x, (bottom - top) * BIN, around.width)
        return raster.totals(section=section, rect=band)

    means = averaged(rows, around.height // BIN, bins)
    y, x = (
        (grid.rect[axis] - around[axis] + grid.centres(axis)) // (bins * BIN) for axis in (0, 1)
    )
    return means[np.ix_(y, x)]


def display_limit(pictures: Sequence[NDArray[Any]]) -> int:
    """Return the value to show at full brightness: all but the brightest 0.2 % lie below it."""
    values = np.concatenate([picture.ravel() for picture in pictures])
    return max(int(np.ceil(np.percentile(values, 99.8))), 1)


def grey_picture(picture: NDArray[Any], limit: int, alt: str) -> Picture:
    """Encode (y, x) in grey, white from `limit` on."""
    return _jpeg(_bytes(picture / limit), alt)


def composite_picture(
    pictures: Sequence[NDArray[Any]], limits: Sequence[int], stains: Sequence[str], alt: str
) -> Picture:
    """Add up the stains (y, x), each in its display colour, fully bright at its limit."""
    mixed = np.zeros((*pictures[0].shape, 3), np.float32)
    for picture, limit, stain in zip(pictures, limits, stains, strict=True):
        colour = np.frombuffer(bytes.fromhex(stain_colour(stain)), np.uint8) / np.float32(255)
        mixed += np.clip(picture / limit, 0, 1)[..., None] * colour
    return _jpeg(_bytes(mixed), alt)


def density_picture(density: Floats, limit: int, alt: str) -> Picture:
    """Encode molecules per bin (y, x) in `COLOURS`, the last colour from `limit` on."""
    rgb = COLOURS(np.clip(density / limit, 0, 1), bytes=True)[..., :3]
    return _embed(imagecodecs.png_encode(np.ascontiguousarray(rgb), level=9), "png", alt, rgb)


def colour_bar(alt: str) -> Picture:
    """Return `COLOURS` from first to last, left to right."""
    return density_picture(np.linspace(0, 1, 256, dtype=np.float32)[None], 1, alt)


def embed_file(content: bytes, alt: str) -> Picture:
    """Embed a PNG file as it is."""
    return _embed(content, "png", alt, imagecodecs.png_decode(content))


def _bytes(shares: NDArray[np.floating]) -> Grey:
    return np.asarray(np.clip(shares, 0, 1) * 255 + 0.5, np.uint8)


def _jpeg(pixels: Grey, alt: str) -> Picture:
    content = imagecodecs.jpeg8_encode(pixels, level=_QUALITY, subsampling="444", optimize=True)
    return _embed(content, "jpeg", alt, pixels)


def _embed(content: bytes | bytearray, kind: str, alt: str, pixels: NDArray[Any]) -> Picture:
    data = base64.b64encode(content).decode("ascii")
    height, width = pixels.shape[:2]
    return Picture(f"data:image/{kind};base64,{data}", alt, width, height)
