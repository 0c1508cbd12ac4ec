"""Published expression tiles as files: their names, where they lie, and their arrays.

Tiles lie in a folder or in a zip archive, which is read in place. Either may come from anywhere:
nothing is unpacked to disk, no pickle is read, and no array larger than a tile can be is made.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from teramind.archives import open_zip
from teramind.errors import UserError, foreign

TILE = 256
FRAME = 128

LARGEST = 1 << 29
"""Most bytes that one tile may unpack to; those of a dense brain region take a hundredth."""

_NAME = re.compile(r"_".join([r"(-?\d{1,9})"] * 8) + r"\.npz")
_MEMBERS = ("coords", "data", "shape", "fill_value")

Position = tuple[int, int]
"""Row and column of a tile (pixels / 256) or of a quarter tile (pixels / 128)."""


@dataclass(frozen=True)
class TileFile:
    """One tile: a file of its own, or a member of an archive."""

    path: Path
    member: zipfile.ZipInfo | None = None
    archive: zipfile.ZipFile | None = None

    def __str__(self) -> str:
        return f"{self.path}/{self.member.filename}" if self.member else str(self.path)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return coords, data, shape and fill_value; UserError unless they are plain arrays."""
        with (
            foreign(f"{self}: not a sparse COO tile of plain arrays"),
            self._open() as stream,
            zipfile.ZipFile(stream) as archive,
        ):
            return {name: _array(archive, f"{name}.npy") for name in _MEMBERS}

    def _open(self) -> IO[bytes]:
        if self.archive is None or self.member is None:
            return self.path.open("rb")
        if self.member.file_size > LARGEST:
            raise ValueError(f"{self.member.file_size} bytes, {LARGEST} at most")
        return io.BytesIO(self.archive.read(self.member))


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Return an .npy member, its size checked before it is read."""
    member = archive.getinfo(name)
    if member.file_size > LARGEST:
        raise ValueError(f"{name} of {member.file_size} bytes, {LARGEST} at most")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"{name} in npy format {version}, (1, 0) expected")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype.hasobject or not dtype.itemsize:
            raise ValueError(f"{name} holds {'Python objects' if dtype.hasobject else 'nothing'}")
        content = stream.read()
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} holds {len(content)} bytes, not {shape} of {dtype}")
    return np.ndarray(shape, dtype, content, order="F" if fortran else "C")


def find_tiles(path: Path) -> dict[Position, TileFile]:
    """Return the tiles of a folder or a zip archive by (row, column), in that order.

    Raises:
        UserError: when there are none, a name contradicts itself, or a tile is there twice.
    """
    tiles: dict[Position, TileFile] = {}
    for tile, name in _files(path):
        place = position(name, where=str(tile))
        if place in tiles:
            raise UserError(f"{tile}: the same tile as {tiles[place]}: keep one of them")
        tiles[place] = tile
    if not tiles:
        raise UserError(f"{path}: holds no expression tiles (*.npz)")
    return dict(sorted(tiles.items()))


def _files(path: Path) -> Iterator[tuple[TileFile, str]]:
    """Yield all .npz files of a folder or archive with their base names."""
    if path.is_dir():
        yield from ((TileFile(file), file.name) for file in path.glob("*.npz"))
        return
    if not path.exists():
        raise UserError(f"{path}: no such folder or zip: give the expression tiles")
    archive = open_zip(path)
    for member in archive.infolist():
        base = member.filename.rpartition("/")[2]
        if base.endswith(".npz") and not base.startswith("._"):  # macOS adds ._ twins
            yield TileFile(path, member, archive), base


def position(name: str, *, where: str) -> Position:
    """Return the row and column of a tile from its file name; UserError names `where`."""
    found = _NAME.fullmatch(name)
    edges = [int(edge) for edge in found.groups()] if found else []
    y, x = (edges[0], edges[2]) if edges else (0, 0)
    core = [y, y + TILE, x, x + TILE]
    frame = [y - FRAME, y + TILE + FRAME, x - FRAME, x + TILE + FRAME]
    if edges != core + frame or y % TILE or x % TILE:
        raise UserError(
            f"{where}: not the name of a tile: y0_y1_x0_x1_y0-128_y1+128_x0-128_x1+128.npz"
            " expected, y0 and x0 multiples of 256, y1 = y0 + 256, x1 = x0 + 256"
        )
    return y // TILE, x // TILE
