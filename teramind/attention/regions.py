"""Regions of the plane: a label image, or polygons in GeoJSON (as QuPath exports them)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from teramind.errors import UserError, foreign
from teramind.geometry import BIN, Rect
from teramind.source_image import LARGEST

OUTSIDE = -1
"""Label of a place in no region."""

Labels = NDArray[np.int64]
Places = NDArray[np.int64]


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
    sections: int,
    pixel_size_um: float,
    units: Literal["pixel", "um"],
) -> Regions:
    """Open a label image (.tif, .tiff) or polygons (.geojson, .json).

    Args:
        path: TIFF of unsigned integers, (y, x) or (section, y, x), as large as the plane in pixels
            or in bins of 16 pixels, 0 where there is no region; or GeoJSON with Polygon and
            MultiPolygon features, in a collection or a list; others are passed over. The property
            `section`, or the z that QuPath writes if not all have the same, names a shape's
            section; else it holds for all.
        plane: the plane in pixels; pixel (0, 0) of a label image lies at its corner.
        sections: sections of the plane.
        pixel_size_um: edge of a pixel.
        units: of the polygons' coordinates (x, y).

    Raises:
        UserError: when the file is something else or does not fit the plane.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"regions {path}: no such file")
    if path.suffix.lower() in (".tif", ".tiff"):
        return LabelImage.open(path, plane=plane, sections=sections)
    if path.suffix.lower() in (".geojson", ".json"):
        scale = 1.0 if units == "pixel" else 1 / pixel_size_um
        return Polygons.open(path, scale=scale, plane=plane, sections=sections)
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

    shapes: tuple[tuple[str, int | None, tuple[NDArray[np.float64], ...]], ...]

    @classmethod
    def open(cls, path: Path, *, scale: float, plane: Rect, sections: int) -> Polygons:
        """Read the file; coordinates times `scale` are pixels. One shape must touch the plane."""
        with foreign(f"regions {path}: not GeoJSON with polygons"):
            content = json.loads(path.read_text(encoding="utf-8"))
            shapes = tuple(_shapes(content, scale))
        if not shapes:
            raise UserError(f"regions {path}: holds no Polygon or MultiPolygon")
        there = range(sections)
        if not any(_touches(rings, plane) for _, z, rings in shapes if z is None or z in there):
            raise UserError(
                f"regions {path}: nothing in it touches the plane, {plane.height} x {plane.width} "
                f"pixels in sections 0 to {sections - 1}; attention.units says what coordinates are"
            )
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


def _shapes(
    content: dict[str, Any] | list[Any], scale: float
) -> Iterator[tuple[str, int | None, tuple[NDArray[np.float64], ...]]]:
    """Yield name, section and rings of every polygon feature.

    QuPath writes the position along z of each object. It says nothing in a file of which all
    objects have the same, as on a slide.
    """
    features = _features(content)
    several = len({_position(feature) for feature in features} - {None}) > 1
    for number, feature in enumerate(features, 1):
        geometry = feature["geometry"] or {"type": None}
        if geometry["type"] in ("Polygon", "MultiPolygon"):
            about, coordinates = feature.get("properties") or {}, geometry["coordinates"]
            name = _name(about) or f"region {number}"
            section = about.get("section", _position(feature) if several else None)
            polygons = [coordinates] if geometry["type"] == "Polygon" else coordinates
            rings = tuple(_ring(ring, scale) for polygon in polygons for ring in polygon)
            # HDF5 splits names at a slash
            yield name.replace("/", "_"), None if section is None else int(section), rings


def _features(content: dict[str, Any] | list[Any]) -> list[Any]:
    """Features of a collection, of a bare list as QuPath also writes, or the only one."""
    if isinstance(content, list):
        return content
    return list(content["features"]) if content["type"] == "FeatureCollection" else [content]


def _position(feature: dict[str, Any]) -> int | None:
    """Where QuPath says that an object lies along z."""
    z = ((feature["geometry"] or {}).get("plane") or {}).get("z")
    return None if z is None else int(z)


def _touches(rings: tuple[NDArray[np.float64], ...], plane: Rect) -> bool:
    """Whether the box around a shape's rings (n, [x, y]) shares pixels with the plane."""
    low, high = np.concatenate(rings).min(0), np.concatenate(rings).max(0)
    return bool((low < (plane.right, plane.bottom)).all() and (high > (plane.x, plane.y)).all())


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
