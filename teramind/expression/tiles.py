"""Published expression tiles: one sparse array per tile of 256 x 256 pixels and its frame.

A file `{y0}_{y1}_{x0}_{x1}_{y0-128}_{y1+128}_{x0-128}_{x1+128}.npz` holds, in pydata/sparse COO
form, counts of shape (y, x, section * gene) = (512, 512, sections * genes) of the framed tile.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teramind.errors import UserError
from teramind.expression.raster_writer import RasterWriter
from teramind.expression.source import Molecules
from teramind.geometry import Rect

TILE = 256
FRAME = 128
PUBLISHED_GENES = 500
_SPAN = TILE + 2 * FRAME
_NAME = re.compile(r"_".join([r"(-?\d+)"] * 8) + r"\.npz")

Position = tuple[int, int]
"""Row and column of a tile (pixels / 256) or of a quarter tile (pixels / 128)."""


@dataclass(frozen=True)
class TileSettings:
    """How to read published tiles."""

    genes: int | None = None
    """Genes per section on the last axis; None: as many as the panel has."""


class TileFolder:
    """A folder of published tiles, read so that every pixel of the plane comes from one tile.

    A pixel comes from the tile it lies in; where there is none, from the frame of the first tile
    (by row, then column) that reaches it.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        settings: TileSettings,
        panel: Sequence[str],
        sections: int,
    ) -> None:
        """List the tiles; gene g of the last axis is gene g of `panel`.

        Raises UserError for a folder without tiles and names that contradict themselves.
        """
        self.folder, self.panel, self.sections = Path(folder), tuple(panel), sections
        self.genes = settings.genes or len(self.panel)
        self.tiles = _find_tiles(self.folder)
        self.molecules: Counter[str] = Counter(dict.fromkeys(self.panel, 0))

    @property
    def bounds(self) -> Rect:
        """The smallest rectangle that holds all tiles without their frames, in pixels."""
        rows, columns = zip(*self.tiles, strict=True)
        top, left = min(rows) * TILE, min(columns) * TILE
        return Rect(top, left, (max(rows) + 1) * TILE - top, (max(columns) + 1) * TILE - left)

    @property
    def extent(self) -> Rect:
        """The smallest rectangle that holds all frames, in pixels."""
        return self.bounds.grown(FRAME)

    def read(self, index: Mapping[str, int]) -> Iterator[Molecules]:
        """Yield the molecules of the panel genes in `index`, tile by tile."""
        targets = np.array([index.get(name, -1) for name in self.panel])
        for (row, column), path in self.tiles.items():
            framed = _read_tile(path, sections=self.sections, genes=self.genes)
            owned = _owned((row, column), self.tiles)
            mine = framed.take(owned[framed.y // FRAME, framed.x // FRAME])
            self._tally(path, mine)
            y, x = mine.y + row * TILE - FRAME, mine.x + column * TILE - FRAME
            gene = targets[mine.gene]
            yield Molecules(mine.section, y, x, gene, mine.count).take(gene >= 0)

    def _tally(self, path: Path, counts: Molecules) -> None:
        if counts.gene.max(initial=0) >= len(self.panel):
            raise UserError(
                f"{path}: molecules of gene {counts.gene.max()} with a panel of"
                f" {len(self.panel)} genes: give the panel the tiles were made with"
            )
        sums = np.zeros(len(self.panel), np.int64)
        np.add.at(sums, counts.gene, counts.count)
        self.molecules.update(dict(zip(self.panel, sums.tolist(), strict=True)))


def import_tiles(
    folder: Path | str,
    raster_path: Path | str,
    *,
    panel: Sequence[str] | None = None,
    genes: int | None = None,
    sections: int | None = None,
    pixel_size_um: float | None = None,
    section_spacing_um: float | None = None,
) -> dict[str, Any]:
    """Turn a folder of published tiles into a raster whose extent is the union of the frames.

    The last axis is sections * genes: give one of the two, or a panel (genes = its length), else
    there are 500 genes as published. A panel shorter than `genes` names the first ones; without one
    genes are named gene_0 and so on.
    Returns sections, genes, tiles, molecules and extent. Raises UserError for faulty tiles.
    """
    path = Path(folder)
    axis = _last_axis(next(iter(_find_tiles(path).values())))
    genes = genes or (axis // sections if sections else len(panel or ()) or PUBLISHED_GENES)
    sections = sections or (axis // genes if genes else 0)
    if not genes or sections * genes != axis:
        raise UserError(
            f"{path}: a last axis of {axis} is not {sections} sections x {genes} genes:"
            " give the right sections, genes or panel"
        )
    names = tuple(panel or (f"gene_{gene}" for gene in range(genes)))
    tiles = TileFolder(path, settings=TileSettings(genes), panel=names, sections=sections)
    writer = RasterWriter(
        raster_path,
        panel=names,
        sections=sections,
        extent=tiles.extent,
        pixel_size_um=pixel_size_um,
        section_spacing_um=section_spacing_um,
        sources=[path],
        bounds=tiles.bounds,
    )
    with writer:
        for chunk in tiles.read({name: place for place, name in enumerate(names)}):
            writer.add(**vars(chunk))
    return {
        "sections": sections,
        "genes": len(names),
        "tiles": len(tiles.tiles),
        "molecules": sum(tiles.molecules.values()),
        "extent": list(tiles.extent),
    }


def _find_tiles(folder: Path) -> dict[Position, Path]:
    """Return the tiles of a folder by (row, column), in that order."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder: give the folder of the expression tiles")
    tiles = {_position(path): path for path in folder.glob("*.npz")}
    if not tiles:
        raise UserError(f"{folder}: holds no expression tiles (*.npz)")
    return dict(sorted(tiles.items()))


def _position(path: Path) -> Position:
    """Return the row and column of a tile from its file name."""
    found = _NAME.fullmatch(path.name)
    edges = [int(edge) for edge in found.groups()] if found else []
    y, x = (edges[0], edges[2]) if edges else (0, 0)
    core = [y, y + TILE, x, x + TILE]
    frame = [y - FRAME, y + TILE + FRAME, x - FRAME, x + TILE + FRAME]
    if edges != core + frame or y % TILE or x % TILE:
        raise UserError(
            f"{path}: not the name of a tile: y0_y1_x0_x1_y0-128_y1+128_x0-128_x1+128.npz expected,"
            " y0 and x0 multiples of 256, y1 = y0 + 256, x1 = x0 + 256"
        )
    return y // TILE, x // TILE


def _owned(tile: Position, tiles: Mapping[Position, Path]) -> NDArray[np.bool_]:
    """Return which of the 4 x 4 quarter tiles under a tile's frame are to be read from it."""
    quarters = [[(2 * tile[0] - 1 + i, 2 * tile[1] - 1 + j) for j in range(4)] for i in range(4)]
    return np.array([[_owner(quarter, tiles) == tile for quarter in row] for row in quarters])


def _owner(quarter: Position, tiles: Mapping[Position, Path]) -> Position | None:
    """Return the tile around a quarter tile, or else the first whose frame reaches it."""
    home = (quarter[0] // 2, quarter[1] // 2)
    rows, columns = ({(edge - 1) // 2, (edge + 1) // 2} for edge in quarter)
    around = sorted((row, column) for row in rows for column in columns)
    return next((tile for tile in [home, *around] if tile in tiles), None)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    """Return the members of a tile; raises UserError if it is not a COO archive of plain arrays."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in ("coords", "data", "shape", "fill_value")}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a sparse COO tile of plain arrays: {reason}") from error


def _last_axis(path: Path) -> int:
    shape = _load(path)["shape"].tolist()
    framed = isinstance(shape, list) and len(shape) == 3 and shape[:2] == [_SPAN, _SPAN]
    _require(framed, path, f"shape {shape}: ({_SPAN}, {_SPAN}, sections x genes) expected")
    return int(shape[2])


def _read_tile(path: Path, *, sections: int, genes: int) -> Molecules:
    """Return the entries of a tile, in pixels of its frame; UserError unless they are counts."""
    members = _load(path)
    shape, expected = members["shape"].tolist(), [_SPAN, _SPAN, sections * genes]
    coords, data = members["coords"], members["data"]
    _require(
        shape == expected,
        path,
        f"shape {shape}: {expected} expected for {sections} sections of {genes} genes",
    )
    _require(
        data.ndim == 1 and coords.shape == (3, len(data)) and coords.dtype.kind in "iu",
        path,
        f"{coords.dtype} coords of shape {coords.shape} for data of shape {data.shape}:"
        " integers of shape (3, n) expected",
    )
    inside = (coords >= 0).all() and (coords < np.array(expected)[:, None]).all()
    _require(bool(inside), path, f"coords beyond the shape {expected}")
    whole = data.dtype.kind in "iuf" and (data >= 0).all() and (data == np.floor(data)).all()
    _require(bool(whole), path, "data: whole counts of at least 0 expected")
    _require(not members["fill_value"].any(), path, "fill_value: 0 expected")
    y, x, channel = coords.astype(np.int64)
    return Molecules(channel // genes, y, x, channel % genes, data.astype(np.int64))


def _require(condition: bool, path: Path, fault: str) -> None:
    if not condition:
        raise UserError(f"{path}: {fault}")
