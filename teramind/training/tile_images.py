"""Published training images: per tile one zipped Zarr v2 array, read in place and piece by piece.

`img_<mouse>/<tile name>.zip` holds (stain section, 512, 512) uint8, stain-major.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import ZipStore

from teramind.archives import BROKEN, open_zip
from teramind.errors import UserError
from teramind.expression.tile_file import LARGEST
from teramind.expression.tiles import SPAN

STAINS = ("DAPI", "PolyT")
"""Stains of a training image, in its order."""

_COMPRESSORS = {None, "blosc", "zstd", "zlib", "gzip", "lz4"}


def read_image(
    path: Path, *, stains: list[int], planes: range, sections: int, y: slice, x: slice
) -> NDArray[np.uint8]:
    """Read a part of a tile's images.

    Args:
        path: the zip.
        stains: which of `STAINS`.
        planes: which sections.
        sections: sections in the tile.
        y: rows.
        x: columns.

    Returns:
        (stain, section, rows, columns).

    Raises:
        UserError: when the file is none of the published arrays or is damaged.
    """
    _check(path, (len(STAINS) * sections, SPAN, SPAN))
    try:
        with ZipStore(path, mode="r") as store:
            array: Any = zarr.open_array(store, mode="r", zarr_format=2)
            parts = [
                array[stain * sections + planes.start : stain * sections + planes.stop, y, x]
                for stain in stains
            ]
    except BROKEN as error:
        raise UserError(f"{path}: damaged ({error})") from error
    return np.stack(parts)


def _check(path: Path, shape: tuple[int, ...]) -> None:
    """Refuse arrays of another kind, and codecs that could run code of the file's."""
    try:
        with open_zip(path) as archive:
            large = [one.filename for one in archive.infolist() if one.file_size > LARGEST]
            if large:
                raise ValueError(f"{large[0]} unpacks to more than {LARGEST} bytes")
            found = json.loads(archive.read(".zarray"))
        codec = (found["compressor"] or {}).get("id")
        facts = (found["shape"], found["dtype"], found["filters"])
        pieces = [piece <= edge for piece, edge in zip(found["chunks"], shape, strict=True)]
    except (*BROKEN, AttributeError, TypeError) as error:
        raise UserError(f"{path}: not a zipped Zarr v2 array ({error})") from error
    if facts != (list(shape), "|u1", None) or codec not in _COMPRESSORS or not all(pieces):
        raise UserError(
            f"{path}: a Zarr array of shape {facts[0]}, type {facts[1]}, filters {facts[2]},"
            f" compressor {codec}; should be {list(shape)}, '|u1', None and a common one"
        )
