"""Real images: read an OME-TIFF of any size, bring it to the network's pixel size, keep as Zarr."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from teramind.errors import UserError, foreign
from teramind.files import atomic_path

_CHUNK = 512
_LARGEST = 1 << 28
"""Pixels of a tile that is read at all: beyond any camera's."""
_WIDEST = 1 << 32
"""Pixels of a band that is read at one time."""


@dataclass(frozen=True)
class SourceImage:
    """A lazily read image: array, axes in its order, pixel size in um, channel names."""

    array: Any
    axes: str
    pixel_size_um: float
    channels: tuple[str, ...]

    @property
    def size(self) -> dict[str, int]:
        """Length of each axis."""
        return dict(zip(self.axes, self.array.shape, strict=True))


def resample_images(
    source: str | Path,
    target: str | Path,
    *,
    stains: Sequence[str],
    pixel_size_um: float,
    white: Mapping[str, int] | None = None,
) -> None:
    """Average an OME-TIFF down to `pixel_size_um` and write it as a Zarr array (c, z, y, x).

    Whole blocks of pixels are averaged, so the sizes must be a whole multiple apart (within 1 %);
    rows and columns that fill no block are cut off. Memory: one band of 512 rows of the result.

    Args:
        source: OME-TIFF, uint8, axes any order of C, Z, Y, X.
        target: Zarr array to make, uint8.
        stains: channels to take, by name, in this order; nameless channels are taken in turn.
        pixel_size_um: edge of one pixel of the result in um.
        white: grey level of a stain that becomes 255, all below in proportion; by default 255.

    Raises:
        UserError: when the file, its metadata or its size does not fit.
    """
    source = Path(source)
    if not source.is_file():
        raise UserError(f"image {source}: no such file")
    unreadable = f"image {source}: not a readable TIFF"
    with foreign(unreadable):
        tiff = tifffile.TiffFile(source)
    with tiff:
        with foreign(unreadable):
            image = _describe(tiff, source)
        factor = _factor(source, image, pixel_size_um)
        channels = _channels(source, image, stains)
        with atomic_path(target) as temporary:
            levels = [(white or {}).get(stain, 255) for stain in stains]
            white_of = dict(zip(channels, levels, strict=True))
            _write(image, temporary, white_of, factor, unreadable=unreadable)


def open_images(path: str | Path, stains: Sequence[str]) -> zarr.Array:
    """Open what `resample_images` wrote. Raises UserError when it is something else."""
    with foreign(f"images {path}: no Zarr array there"):
        images = zarr.open_array(Path(path), mode="r", zarr_format=3)
    sound = images.ndim == 4 and 0 not in images.chunks and images.dtype == np.uint8
    if not sound or images.shape[0] != len(stains):
        raise UserError(
            f"images {path}: {images.dtype} {images.shape}; needs uint8 (c, z, y, x) with "
            f"c = {len(stains)} ({', '.join(stains)})"
        )
    return images


def _describe(tiff: tifffile.TiffFile, path: Path) -> SourceImage:
    if not tiff.ome_metadata:
        raise UserError(f"image {path}: carries no OME metadata; not an OME-TIFF, or truncated")
    image = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
    pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
    _require_planes(tiff, pixels, path)
    series = tiff.series[0]
    if series.kind != "ome":
        raise UserError(f"image {path}: its OME metadata do not fit its pages; write it again")
    if series.dtype != np.uint8 or not {"Y", "X"} <= set(series.axes) <= set("CZYX"):
        raise UserError(
            f"image {path}: {series.dtype} with axes {series.axes}; needs uint8 of CZYX"
        )
    _check_whole(series, path)
    channel = pixels.get("Channel", [])
    names = [str(c.get("Name", "")) for c in (channel if isinstance(channel, list) else [channel])]
    array = zarr.open_array(series.aszarr(level=0), mode="r")
    return SourceImage(array, series.axes, _pixel_size_um(pixels, path), tuple(names))


def _require_planes(tiff: tifffile.TiffFile, pixels: dict[str, Any], path: Path) -> None:
    """Refuse metadata that claim more planes than there are pages, before any is looked for."""
    first: Any = tiff.pages.first
    claimed = math.prod(int(pixels[f"Size{axis}"]) for axis in "CZT") // first.samplesperpixel
    size = int(pixels["SizeY"]), int(pixels["SizeX"])
    if size != first.shape[:2]:
        raise UserError(
            f"image {path}: its OME metadata say {size[0]} x {size[1]} pixels, its pages hold "
            f"{' x '.join(map(str, first.shape))}; write it again"
        )
    if claimed > len(tiff.pages):
        raise UserError(
            f"image {path}: its OME metadata name {claimed:,} planes, the file has "
            f"{len(tiff.pages)}; give one file that holds them all"
        )


def _check_whole(series: tifffile.TiffPageSeries, path: Path) -> None:
    """Refuse a file that ends before its data; some codecs would fill in what is missing."""
    for page in series.pages:
        if page is None or _end(page) > page.parent.filehandle.size:
            raise UserError(f"image {path}: truncated, its data reach beyond the end of the file")
        if Path(page.parent.filehandle.path).resolve() != path.resolve():
            raise UserError(
                f"image {path}: its planes are in {page.parent.filehandle.name}; give one file "
                "that holds them all"
            )
        tile = page.keyframe.chunks if page.keyframe else ()
        if math.prod(tile) > _LARGEST:
            raise UserError(f"image {path}: tiles of {tile} pixels are too large")


def _end(page: tifffile.TiffPage | tifffile.TiffFrame) -> int:
    """First byte of the file after the page's data."""
    return max(a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=True))


def _pixel_size_um(pixels: dict[str, Any], path: Path) -> float:
    """Edge of a pixel from the OME `Pixels` element."""
    sizes: set[Any] = {pixels.get(f"PhysicalSize{axis}") for axis in "YX"}
    units = {pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "YX"}
    if len(sizes) != 1 or None in sizes or units != {"µm"}:
        raise UserError(
            f"image {path}: its OME metadata must give PhysicalSizeX and PhysicalSizeY, equal and "
            "in um"
        )
    (size,) = sizes
    if not isinstance(size, int | float) or not 0 < size < math.inf:
        raise UserError(f"image {path}: pixels of {size} um; must be a finite number above 0")
    return float(size)


def _factor(path: Path, image: SourceImage, want: float) -> int:
    """Pixels of the image along one pixel of `want` um."""
    have = image.pixel_size_um
    factor = max(round(min(want / have, _LARGEST)), 1)
    if abs(factor * have / want - 1) > 0.01:
        raise UserError(
            f"image {path}: pixels of {have} um do not average to {want} um; "
            f"the nearest pixel size that fits is {factor * have:.5g} um"
        )
    if factor > min(image.size["Y"], image.size["X"]):
        raise UserError(f"image {path}: smaller than one pixel of {want} um")
    if min(_CHUNK * factor, image.size["Y"]) * image.size["X"] > _WIDEST:
        raise UserError(
            f"image {path}: {image.size['X']} columns of {have} um are too many to "
            f"average {factor} of them to a pixel of {want} um"
        )
    return factor


def _channels(path: Path, image: SourceImage, stains: Sequence[str]) -> list[int]:
    """Index of each stain's channel."""
    count = image.size.get("C", 1)
    if not any(image.channels) and count == len(stains):
        return list(range(count))
    missing = [s for s in stains if s not in image.channels]
    if missing:
        raise UserError(
            f"image {path}: no channel named {missing[0]}; its {count} channels are named "
            f"{list(image.channels)}"
        )
    return [image.channels.index(s) for s in stains]


def _write(
    image: SourceImage, target: Path, white: dict[int, int], factor: int, *, unreadable: str
) -> None:
    """Write the channels that are keys of `white`, in that order."""
    size = image.size
    height, width = size["Y"] // factor, size["X"] // factor
    out = zarr.create_array(
        target,
        shape=(len(white), size.get("Z", 1), height, width),
        chunks=(1, 1, min(_CHUNK, height), min(_CHUNK, width)),
        dtype="uint8",
    )
    for c, (channel, level) in enumerate(white.items()):
        for z in range(out.shape[1]):
            for y in range(0, height, _CHUNK):
                rows = slice(y * factor, min(y + _CHUNK, height) * factor)
                place = {"C": channel, "Z": z, "Y": rows, "X": slice(0, width * factor)}
                with foreign(unreadable):
                    band = np.asarray(image.array[tuple(place[axis] for axis in image.axes)])
                out[c, z, y : y + _CHUNK] = _block_mean(
                    _rows_first(band, image.axes), factor, level
                )


def _rows_first(band: np.ndarray, axes: str) -> np.ndarray:
    """The band as (y, x) whichever of the two the file stores first."""
    return band if axes.index("Y") < axes.index("X") else band.T


def _block_mean(pixels: np.ndarray, factor: int, white: int) -> np.ndarray:
    """255/white times the mean over factor x factor blocks, rounded half up; uint8 in and out."""
    height, width = pixels.shape
    blocks = pixels.reshape(height // factor, factor, width // factor, factor)
    total = blocks.sum(axis=(1, 3), dtype=np.uint64)
    whole = np.uint64(white * factor**2)
    grey = (np.uint64(2 * 255) * total + whole) // (np.uint64(2) * whole)
    return np.minimum(grey, 255).astype(np.uint8)
