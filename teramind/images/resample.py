"""Real images at the network's pixel size: resampled once, kept as Zarr."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from teramind.errors import UserError, foreign
from teramind.files import atomic_path
from teramind.geometry import Rect
from teramind.images.source import SourceImage, open_source

_CHUNK = 256
"""Edge of what is read at least: training windows are small."""

_SHARD = 4096
"""Edge of a file: a brain of 50 sections makes some 40,000."""

_TILE = 1 << 22
"""Pixels of the source that are read at once, about."""

Span = tuple[int, int]
"""Pixels [a, b) of the result along an axis."""

WHITE = 255
"""Grey level of the brightest pixel."""


def resample_images(
    source: str | Path,
    target: str | Path,
    *,
    stains: Sequence[str],
    pixel_size_um: float,
    white: Mapping[str, int] | None = None,
) -> None:
    """Bring an image to `pixel_size_um` and write it as a Zarr array (c, z, y, x), uint8.

    A pixel of the result is the mean of the image over its area, whatever the ratio of the pixel
    sizes. Where these are a whole multiple apart, but for less than half a pixel over the image,
    whole blocks of pixels are averaged, in integers. Rows and columns that fill no pixel are cut
    off. Memory: a shard of 4096 x 4096 pixels and 4 million pixels of the source.

    Args:
        source: OME-TIFF or OME-Zarr, uint8 or uint16, axes in any order.
        target: Zarr array to make.
        stains: channels to take, by name, in this order; nameless channels are taken in turn.
        pixel_size_um: edge of one pixel of the result in um.
        white: grey level of a stain that becomes 255, all below in proportion; by default 255.

    Raises:
        UserError: when the file, its metadata, its size or its content does not fit.
    """
    with open_source(Path(source)) as image:
        levels = dict(zip(image.select(stains), stains, strict=True))
        if image.array.dtype.itemsize == 2 and set(stains) - set(white or {}):
            raise UserError(
                f"image {source}: uint16; say by reference.white which grey level of each stain "
                "becomes 255"
            )
        scale = _scale(image, pixel_size_um)
        with atomic_path(target) as temporary:
            for stain, limit in _write(
                image, temporary, {c: (white or {}).get(s, WHITE) for c, s in levels.items()}, scale
            ):
                if limit[0] == limit[1]:
                    raise UserError(
                        f"image {source}: {levels[stain]} is constant, grey level {limit[0]} "
                        "everywhere"
                    )


def open_images(path: str | Path, stains: Sequence[str]) -> zarr.Array:
    """Open what `resample_images` wrote. Raises UserError when it is something else, or in part."""
    with foreign(f"images {path}: no Zarr array there"):
        images = zarr.open_array(Path(path), mode="r", zarr_format=3)
    sound = images.ndim == 4 and 0 not in images.chunks and images.dtype == np.uint8
    if not sound or images.shape[0] != len(stains):
        raise UserError(
            f"images {path}: {images.dtype} {images.shape}; needs uint8 (c, z, y, x) with "
            f"c = {len(stains)} ({', '.join(stains)})"
        )
    if missing := next(_missing(images, Path(path)), None):
        raise UserError(f"images {path}: {missing} is missing; remove all of it and run again")
    return images


def _missing(images: zarr.Array, path: Path) -> Iterator[str]:
    """Names of files that an array lacks; Zarr would read zeros there, which are black."""
    pieces = zip(images.shape, images.shards or images.chunks, strict=True)
    for place in product(*(range(-(-length // piece)) for length, piece in pieces)):
        name = images.metadata.encode_chunk_key(place)
        if not (path / name).exists():
            yield name


def require_plane(
    images: zarr.Array, plane: Rect, *, sections: int, path: str | Path, tolerance: int
) -> None:
    """Refuse images (c, z, y, x) of another plane; they may lack the last of its sections.

    Args:
        images: what `open_images` opened.
        plane: in pixels.
        sections: of the plane.
        path: of the images.
        tolerance: pixels from which on edges of images and plane lie apart.

    Raises:
        UserError: when they end elsewhere, because the pixel size is wrong or they show something
            else; or when they hold more sections, such as the focal planes of one.
    """
    found, height, width = images.shape[1:]
    if found > sections:
        raise UserError(
            f"{path}: {found} sections, but plane.sections is {sections}; images and expression "
            "must show the same: give the images of these sections alone"
        )
    if max(abs(height - plane.bottom), abs(width - plane.right)) >= tolerance:
        raise UserError(
            f"{path}: {height} x {width} pixels, but the plane ends at {plane.bottom} x "
            f"{plane.right}; images and expression must show the same: check the images' pixel "
            "size, plane.height and plane.width"
        )


def _scale(image: SourceImage, want: float) -> float:
    """Pixels of the image along one pixel of `want` um; whole where that is what is meant."""
    scale = want / image.pixel_size_um
    shortest, longest = sorted((image.size["Y"], image.size["X"]))
    whole = round(scale)
    if whole and abs(longest / scale - longest / whole) < 0.5:
        scale = float(whole)
    if shortest < scale:
        raise UserError(f"image {image.path}: smaller than one pixel of {want} um")
    return scale


def _write(
    image: SourceImage, target: Path, white: dict[int, int], scale: float
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Write the channels that are keys of `white`; yield each with its least and largest level."""
    size = image.size
    height, width = (math.floor(size[axis] / scale + 1e-6) for axis in "YX")
    chunk = [min(_CHUNK, n) for n in (height, width)]
    shard = [min(_SHARD, -(-n // c) * c) for n, c in zip((height, width), chunk, strict=True)]
    out = zarr.create_array(
        target,
        shape=(len(white), size.get("Z", 1), height, width),
        chunks=(1, 1, *chunk),
        shards=(1, 1, *shard),
        dtype="uint8",
        compressors=ZstdCodec(level=1),
        config={"write_empty_chunks": True},  # so that a file that is lost is not taken for black
    )
    for c, (channel, level) in enumerate(white.items()):
        least, largest = 255, 0
        for z in range(out.shape[1]):
            for y, bottom in _steps(height, shard[0]):
                for x, right in _steps(width, shard[1]):
                    part = _resampled(image, channel, z, (y, bottom, x, right), scale, level)
                    out[c, z, y:bottom, x:right] = part
                    least, largest = min(least, int(part.min())), max(largest, int(part.max()))
        yield channel, (least, largest)


def _steps(length: int, step: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + step, length)) for start in range(0, length, step))


def _resampled(
    image: SourceImage,
    channel: int,
    z: int,
    box: tuple[int, int, int, int],
    scale: float,
    white: int,
) -> NDArray[np.uint8]:
    """Pixels of the result in (top, bottom, left, right), read in tiles."""
    top, bottom, left, right = box
    made = np.empty((bottom - top, right - left), np.uint8)
    edge = max(int(math.sqrt(_TILE) / scale), 1)
    mean = _block_mean if scale.is_integer() else _area_mean
    for y, below in _steps(bottom - top, edge):
        for x, beside in _steps(right - left, edge):
            ys, xs = (top + y, top + below), (left + x, left + beside)
            rows, columns = (_under(span, scale) for span in (ys, xs))
            pixels = image.read(channel, z, rows, columns)
            made[y:below, x:beside] = mean(pixels, ys, xs, scale, white)
    return made


def _under(span: Span, scale: float) -> slice:
    """Pixels of the source that pixels [a, b) of the result touch."""
    return slice(math.floor(span[0] * scale), math.ceil(span[1] * scale - 1e-6))


def _block_mean(
    pixels: NDArray[np.integer], ys: Span, xs: Span, scale: float, white: int
) -> NDArray[np.uint8]:
    """255/white times the mean over whole blocks, rounded half up, in integers."""
    factor = int(scale)
    blocks = pixels.reshape(ys[1] - ys[0], factor, xs[1] - xs[0], factor)
    total = blocks.sum(axis=(1, 3), dtype=np.uint64)
    whole = np.uint64(white * factor**2)
    grey = (np.uint64(2 * WHITE) * total + whole) // (np.uint64(2) * whole)
    return np.minimum(grey, WHITE).astype(np.uint8)


def _area_mean(
    pixels: NDArray[np.integer], ys: Span, xs: Span, scale: float, white: int
) -> NDArray[np.uint8]:
    """255/white times the mean over the area of each pixel, rounded half up."""
    means = pixels.astype(np.float64)
    for axis, span in enumerate((ys, xs)):
        edges = np.arange(span[0], span[1] + 1) * scale - math.floor(span[0] * scale)
        means = _mean_between(means, np.clip(edges, 0, means.shape[axis]), axis)
    return np.clip(np.floor(means * (WHITE / white) + 0.5), 0, WHITE).astype(np.uint8)


def _mean_between(
    values: NDArray[np.float64], edges: NDArray[np.float64], axis: int
) -> NDArray[np.float64]:
    """Mean of a step function between edges, in units of its steps, along an axis."""
    moved = np.moveaxis(values, axis, 0)
    sums = np.concatenate([np.zeros_like(moved[:1]), np.cumsum(moved, 0)])
    below = np.minimum(edges.astype(int), len(moved) - 1)
    part = (edges - below).reshape(-1, *[1] * (moved.ndim - 1))
    integral = sums[below] + part * moved[below]
    widths = np.diff(edges).reshape(part[1:].shape)
    return np.moveaxis(np.diff(integral, axis=0) / widths, 0, axis)
