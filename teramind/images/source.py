"""Images as microscopes and pipelines leave them: OME-TIFF and OME-Zarr, read lazily."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from teramind.errors import UserError, foreign

_UM = {"µm": 1.0, "um": 1.0, "micrometer": 1.0, "nm": 1e-3, "nanometer": 1e-3, "mm": 1e3}
_UM["millimeter"] = 1e3

LARGEST = 1 << 28
"""Pixels of a tile or chunk that is read at all: beyond any camera's."""


@dataclass(frozen=True)
class SourceImage:
    """A lazily read image: array, axes in its order, pixel size in um, channel names."""

    path: Path
    array: Any
    axes: str
    pixel_size_um: float
    channels: tuple[str, ...]

    @property
    def size(self) -> dict[str, int]:
        """Length of each axis."""
        return dict(zip(self.axes, self.array.shape, strict=True))

    def select(self, stains: Sequence[str]) -> list[int]:
        """Index of each stain's channel: by name, or in turn where no channel has one.

        Raises:
            UserError: naming the channel that is missing.
        """
        count = self.size.get("C", 1)
        if not any(self.channels) and count == len(stains):
            return list(range(count))
        missing = [stain for stain in stains if stain not in self.channels]
        if missing:
            raise UserError(
                f"image {self.path}: no channel named {missing[0]}; its {count} channels are named "
                f"{list(self.channels)}"
            )
        return [self.channels.index(stain) for stain in stains]

    def read(self, channel: int, z: int, rows: slice, columns: slice) -> np.ndarray:
        """Pixels (y, x) of one plane."""
        place = {"T": 0, "C": channel, "Z": z, "Y": rows, "X": columns}
        with foreign(f"image {self.path}: not readable"):
            part = np.asarray(self.array[tuple(place[axis] for axis in self.axes)])
        return part if self.axes.index("Y") < self.axes.index("X") else part.T


@contextmanager
def open_source(path: Path) -> Iterator[SourceImage]:
    """Open an OME-TIFF, or the folder of an OME-Zarr (NGFF 0.4 or 0.5), at full resolution.

    Raises:
        UserError: when the file or its metadata do not fit, or its pixels turn out damaged.
    """
    if path.is_dir():
        yield _describe_zarr(path)
        return
    if not path.is_file():
        raise UserError(f"image {path}: no such file")
    with foreign(f"image {path}: not a readable TIFF"):
        tiff = tifffile.TiffFile(path)
    with tiff:
        with foreign(f"image {path}: not a readable TIFF"):
            image = _describe_tiff(tiff, path)
        yield image


def _describe_zarr(path: Path) -> SourceImage:
    with foreign(f"image {path}: not an OME-Zarr image"):
        attributes: Any = dict(zarr.open_group(path, mode="r").attrs)
        described = attributes.get("ome") or attributes
        scales = described["multiscales"][0]
        first = scales["datasets"][0]
        array: Any = zarr.open_array(_inside(path, str(first["path"])), mode="r")
        axes = "".join(str(axis["name"]).upper() for axis in scales["axes"])
        units = dict(zip(axes, (axis.get("unit") for axis in scales["axes"]), strict=True))
        moves = [*first["coordinateTransformations"], *scales.get("coordinateTransformations", [])]
        steps = [map(float, move["scale"]) for move in moves if move["type"] == "scale"]
        scale = {a: math.prod(s) for a, *s in zip(axes, steps[0], *steps[1:], strict=True)}
        lengths = dict(zip(axes, array.shape, strict=True))
        omero = described.get("omero") or {}
        names = tuple(str(channel.get("label", "")) for channel in omero.get("channels", []))
    _check_pixels(array.dtype, lengths, path)
    if math.prod(array.chunks) > LARGEST or 0 in array.shape:
        raise UserError(f"image {path}: {array.shape} in chunks of {array.chunks}; cannot be read")
    sizes = {scale[a] * _UM.get(str(units[a]), math.nan) for a in "YX"}
    return SourceImage(path, array, axes, _edge(sizes, path, "coordinateTransformations"), names)


def _inside(folder: Path, name: str) -> Path:
    """A path in a folder; files must not lead out of it."""
    found = (folder / name).resolve()
    if not found.is_relative_to(folder.resolve()):
        raise UserError(f"image {folder}: its level {name} lies outside of it")
    return found


def _describe_tiff(tiff: tifffile.TiffFile, path: Path) -> SourceImage:
    if not tiff.ome_metadata:
        raise UserError(f"image {path}: carries no OME metadata; not an OME-TIFF, or truncated")
    image = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
    pixels: Mapping[str, Any] = (image[0] if isinstance(image, list) else image)["Pixels"]
    _require_planes(tiff, pixels, path)
    series = tiff.series[0]
    if series.kind != "ome":
        raise UserError(f"image {path}: its OME metadata do not fit its pages; write it again")
    _check_pixels(series.dtype, dict(zip(series.axes, series.shape, strict=True)), path)
    _check_whole(series, path)
    channel = pixels.get("Channel", [])
    names = [str(c.get("Name", "")) for c in (channel if isinstance(channel, list) else [channel])]
    sizes = {
        float(pixels.get(f"PhysicalSize{a}", "nan"))
        * _UM.get(str(pixels.get(f"PhysicalSize{a}Unit", "µm")), np.nan)
        for a in "YX"
    }
    size = _edge(sizes, path, "PhysicalSizeX and PhysicalSizeY")
    array: Any = (
        zarr.open_array(series.aszarr(level=0), mode="r")
        if series.dataoffset is None
        else tifffile.memmap(path, mode="r")  # in one piece: Zarr would read all of it at once
    )
    return SourceImage(path, array, series.axes, size, tuple(names))


def _check_pixels(dtype: Any, lengths: Mapping[str, int], path: Path) -> None:
    """Refuse pixels of another type or with other axes (axis -> length)."""
    native, axes = np.dtype(dtype).newbyteorder("="), "".join(lengths)
    if native not in (np.uint8, np.uint16) or not {"Y", "X"} <= set(axes) <= set("TCZYX"):
        raise UserError(f"image {path}: {dtype} with axes {axes}; needs uint8 or uint16 of CZYX")
    if lengths.get("T", 1) != 1:
        raise UserError(f"image {path}: has {lengths['T']} time points; needs one")


def _require_planes(tiff: tifffile.TiffFile, pixels: Mapping[str, Any], path: Path) -> None:
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
        if math.prod(tile) > LARGEST and series.dataoffset is None:
            raise UserError(
                f"image {path}: compressed in pieces of {' x '.join(map(str, tile))} pixels, too "
                "large to read a part of; write it in tiles, of 512 x 512 pixels for example"
            )


def _end(page: tifffile.TiffPage | tifffile.TiffFrame) -> int:
    """First byte of the file after the page's data."""
    return max(a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=True))


def _edge(sizes: set[float], path: Path, where: str) -> float:
    """Edge of a pixel in um, from its height and width."""
    size = min(sizes)
    if size <= 0:
        raise UserError(f"image {path}: pixels of {size} um; must be a finite number above 0")
    if not np.isfinite([*sizes]).all() or max(sizes) - size > 1e-6 * size:
        raise UserError(
            f"image {path}: its OME metadata must give {where}, equal and with a unit of length"
        )
    return size
