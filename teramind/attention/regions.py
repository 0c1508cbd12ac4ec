"""Regions of the plane: a label image, or polygons in GeoJSON (as QuPath exports them)."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from teramind.config.values import LengthUnit
from teramind.errors import UserError, foreign, invisible, some
from teramind.expression.sections import section_label
from teramind.geometry import BIN, Rect
from teramind.images.source import LARGEST

OUTSIDE = -1
"""Label of a place in no region."""

Labels = NDArray[np.int64]
Places = NDArray[np.int64]
Shape = tuple[str, int | None, tuple[NDArray[np.float64], ...]]


class Regions(Protocol):
    """Something that knows the region of every pixel."""

    def labels(self, section: int, y: Places, x: Places) -> Labels:
        """Label (len(y), len(x)) of the pixels at rows `y` and columns `x` of the plane."""

    def name(self, label: int) -> str:
        """Name of a region."""


def open_regions(
    path: str | Path,
    *,
    plane: Rect,
    drawn: Rect,
    sections: int,
    pixel_size_um: float,
    units: LengthUnit,
) -> Regions:
    """Open a label image (.tif, .tiff) or polygons (.geojson, .json).

    Args:
        path: TIFF of unsigned integers, (y, x) or (section, y, x), as large as the plane in pixels
            or in bins of 16 pixels, 0 where there is no region; or GeoJSON with Polygon and
            MultiPolygon features, in a collection or a list; others are passed over. The property
            `section` names a shape's section, or QuPath's z where that of any is above 0; else it
            holds for all.
        plane: the plane in pixels; pixel (0, 0) of a label image lies at its corner.
        drawn: the part of the plane that one polygon at least must touch.
        sections: sections of the plane.
        pixel_size_um: edge of a pixel.
        units: of the polygons' coordinates (x, y).

    Raises:
        UserError: when the file is something else or does not fit the plane or what is drawn.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"regions {path}: no such file")
    if path.suffix.lower() in (".tif", ".tiff"):
        return LabelImage.open(path, plane=plane, sections=sections)
    if path.suffix.lower() in (".geojson", ".json"):
        scale = 1.0 if units == "pixel" else 1 / pixel_size_um
        return Polygons.open(path, scale=scale, drawn=drawn, sections=sections)
    raise UserError(f"regions {path}: must be a label image (.tif) or polygons (.geojson)")


@dataclass(frozen=True)
class LabelImage:
    """A label image, read where it is asked for: (section or 1, y, x)."""

    path: Path
    array: Any
    plane: Rect
    step: int

    @classmethod
    def open(cls, path: Path, *, plane: Rect, sections: int) -> LabelImage:
        """Open and check the size."""
        import tifffile
        import zarr

        with foreign(f"regions {path}: not a readable TIFF"), tifffile.TiffFile(path) as tiff:
            series = tiff.series[0]
            alike = sum(image.shape == series.shape for image in tiff.series)
            if alike > 1:
                raise UserError(
                    f"regions {path}: {alike} images of {' x '.join(map(str, series.shape))}, but "
                    "one must hold all sections; write them as one array (section, y, x)"
                )
            if series.dataoffset is not None:  # in one piece: Zarr would read all of it at once
                array: Any = tifffile.memmap(path, mode="r")
            else:
                array = zarr.open_array(series.aszarr(level=0), mode="r")
                if math.prod(array.chunks) > LARGEST:
                    raise UserError(
                        f"regions {path}: compressed in pieces of "
                        f"{' x '.join(map(str, array.chunks))} pixels, too large to read a part "
                        "of; write it in tiles, of 512 x 512 pixels for example"
                    )
        if array.dtype.kind not in "ui" or array.ndim not in (2, 3):
            raise UserError(
                f"regions {path}: {array.dtype} {array.shape}; must be whole numbers, (y, x) or "
                "(section, y, x)"
            )
        sizes = {step: (-(-plane.height // step), -(-plane.width // step)) for step in (1, BIN)}
        fitting = [step for step, size in sizes.items() if array.shape[-2:] == size]
        if not fitting or (array.ndim == 3 and array.shape[0] != sections):
            raise UserError(
                f"regions {path}: {' x '.join(map(str, array.shape))}; must be {sizes[1][0]} x "
                f"{sizes[1][1]} (pixels of the plane) or {sizes[BIN][0]} x {sizes[BIN][1]} (bins), "
                f"for all sections or for each of {sections}"
            )
        return cls(path, array, plane, fitting[0])

    def labels(self, section: int, y: Places, x: Places) -> Labels:
        """See `Regions`; 0 in the image is no region."""
        rows, cols = ((v - edge) // self.step for v, edge in zip((y, x), self.plane, strict=False))
        height, width = self.array.shape[-2:]
        there = np.ix_((rows >= 0) & (rows < height), (cols >= 0) & (cols < width))
        found = np.full((len(y), len(x)), OUTSIDE, np.int64)
        rows, cols = rows[there[0].ravel()], cols[there[1].ravel()]
        if len(rows) and len(cols):
            box = (slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1))
            with foreign(f"regions {self.path}: not readable"):
                part = np.asarray(self.array[(section, *box) if self.array.ndim == 3 else box])
            values = part[np.ix_(rows - rows[0], cols - cols[0])].astype(np.int64)
            found[there] = np.where(values > 0, values, OUTSIDE)
        return found

    def name(self, label: int) -> str:
        """The label itself."""
        return str(label)


@dataclass(frozen=True)
class Polygons:
    """Named shapes: rings in pixels (n, [x, y]), and the section they hold for, None for all."""

    shapes: tuple[Shape, ...]

    @classmethod
    def open(cls, path: Path, *, scale: float, drawn: Rect, sections: int) -> Polygons:
        """Read the file; coordinates times `scale` are pixels. A shape must touch what is drawn."""
        with foreign(f"regions {path}: not GeoJSON with polygons"):
            content = json.loads(path.read_text(encoding="utf-8"))
            shapes = tuple(_shapes(content, scale, f"regions {path}"))
        if not shapes:
            raise UserError(f"regions {path}: holds no Polygon or MultiPolygon")
        _require_touching(path, shapes, drawn, range(sections))
        return cls(shapes)

    def labels(self, section: int, y: Places, x: Places) -> Labels:
        """See `Regions`; where shapes overlap the first one counts, and holes are outside."""
        from matplotlib.path import Path as Ring

        points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2) + 0.5
        found = np.full(len(points), OUTSIDE, np.int64)
        for name, only, rings in self.shapes:
            if only is None or only == section:
                crossed = sum(Ring(ring).contains_points(points).astype(int) for ring in rings)
                found[(found == OUTSIDE) & (crossed % 2 == 1)] = self._names.index(name)
        return found.reshape(len(y), len(x))

    @property
    def _names(self) -> list[str]:
        """Names of all shapes, each once; shapes of one name are one region."""
        return list(dict.fromkeys(name for name, _, _ in self.shapes))

    def name(self, label: int) -> str:
        """The feature's name."""
        return self._names[label]


def _shapes(content: Any, scale: float, where: str) -> Iterator[Shape]:
    """Yield name, section and rings of every polygon feature.

    QuPath leaves out a z of 0, the only one that a slide has. So z tells sections apart where an
    object lies above 0; else nothing says which section is meant.
    """
    features = _features(content, where)
    stack = any(_position(feature) for feature in features)
    known: dict[str, tuple[int, str]] = {}
    for number, feature in enumerate(features, 1):
        kind = (feature["geometry"] or {"type": None})["type"]
        if kind in ("Polygon", "MultiPolygon"):
            with foreign(f"{where}: feature {number}: not a {kind}"):
                name = _name(feature.get("properties") or {}) or f"region {number}"
                section = _section(feature, stack, f"{where}: feature {number}")
                rings = _rings(feature["geometry"], scale)
            if invisible(name):
                raise UserError(f"{where}: feature {number}: name {name!r} is not a line of text")
            written = name.replace("/", "_")  # HDF5 splits names at a slash
            first, own = known.setdefault(written, (number, name))
            if own != name:
                raise UserError(
                    f"{where}: feature {number}: {name!r} would be written as {written!r}, as "
                    f"feature {first} is; rename one of them"
                )
            yield written, section, rings


def _features(content: Any, where: str) -> list[dict[str, Any]]:
    """Features of a collection, of a bare list as QuPath also writes, or the only one."""
    if isinstance(content, dict):
        content = content["features"] if content.get("type") == "FeatureCollection" else [content]
    for number, feature in enumerate(content, 1):
        if not isinstance(feature, dict) or "geometry" not in feature:
            found = feature.get("type") if isinstance(feature, dict) else feature
            raise UserError(
                f"{where}: feature {number}: got {found!r}; must be a Feature with a geometry"
            )
    return list(content)


def _section(feature: dict[str, Any], stack: bool, where: str) -> int | None:
    """The section that a feature names, or its z where the image is a stack."""
    about = feature.get("properties") or {}
    section = about.get("section", _position(feature) if stack else None)
    label = None if section is None else section_label(section)
    if label is not None and not label.isdecimal():
        raise UserError(f"{where}: section is {section!r}; must be its number, from 0")
    return None if label is None else int(label)


def _position(feature: dict[str, Any]) -> int:
    """Where QuPath says that an object lies along z."""
    return int(((feature["geometry"] or {}).get("plane") or {}).get("z") or 0)


def _rings(geometry: dict[str, Any], scale: float) -> tuple[NDArray[np.float64], ...]:
    coordinates = geometry["coordinates"]
    polygons = [coordinates] if geometry["type"] == "Polygon" else coordinates
    return tuple(_ring(ring, scale) for polygon in polygons for ring in polygon)


def _require_touching(path: Path, shapes: tuple[Shape, ...], drawn: Rect, sections: range) -> None:
    """Refuse shapes that all miss what is drawn; say which ones do, beside others."""
    beside = [
        name
        for name, section, rings in shapes
        if section not in (None, *sections) or not _touches(rings, drawn)
    ]
    place = (
        f"what is drawn, [y, x, height, width] {list(drawn)} in pixels of the plane in sections 0 "
        f"to {sections[-1]}"
    )
    if len(beside) == len(shapes):
        raise UserError(
            f"regions {path}: nothing in it touches {place}; attention.units says what "
            "coordinates are, which count from the plane's pixel (0, 0)"
        )
    if beside:
        print(
            f"regions {path}: {len(beside)} of {len(shapes)} shapes lie outside {place}: "
            f"{some(beside)}",
            file=sys.stderr,
        )


def _touches(rings: tuple[NDArray[np.float64], ...], rect: Rect) -> bool:
    """Whether the box around a shape's rings (n, [x, y]) shares pixels with `rect`."""
    low, high = np.concatenate(rings).min(0), np.concatenate(rings).max(0)
    return bool((low < (rect.right, rect.bottom)).all() and (high > (rect.x, rect.y)).all())


def _name(about: dict[str, Any]) -> str:
    """A feature's own name, or its class's; QuPath lists the parts of a derived class."""
    own, found = about.get("name"), about.get("classification") or {}
    if isinstance(found, str):
        found = {"name": found}
    return str(own or found.get("name") or ": ".join(found.get("names") or ()))


def _ring(points: Any, scale: float) -> NDArray[np.float64]:
    ring = np.array([point[:2] for point in points], np.float64) * scale
    if ring.ndim != 2 or len(ring) < 4 or not np.isfinite(ring).all():
        raise ValueError("a ring needs at least four finite points")
    return ring
