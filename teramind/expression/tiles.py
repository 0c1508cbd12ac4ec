"""Published expression tiles: one sparse array per tile of 256 x 256 pixels and its frame.

A file `{y0}_{y1}_{x0}_{x1}_{y0-128}_{y1+128}_{x0-128}_{x1+128}.npz` holds, in pydata/sparse COO
form, counts of shape (y, x, section * gene) = (512, 512, sections * genes) of the framed tile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teramind.errors import UserError
from teramind.expression.raster_writer import RasterWriter
from teramind.expression.source import Molecules
from teramind.expression.spill import MAX_COUNT
from teramind.expression.tile_file import FRAME, TILE, Position, TileFile, find_tiles
from teramind.expression.tile_overlap import Overlaps
from teramind.geometry import EMPTY, Rect

PUBLISHED_GENES = 500
SPAN = TILE + 2 * FRAME
"""Edge of a tile with its frame in pixels."""


@dataclass(frozen=True)
class TileSettings:
    """How to read published tiles."""

    genes: int | None = None
    """Genes per section on the last axis; None: as many as have names."""
    names: tuple[str, ...] = ()
    """Names of the genes on the last axis; a gene beyond them must have no molecule. None: those of
    the panel."""


class ExpressionTiles:
    """Published tiles in a folder or zip, read so that every pixel comes from one tile.

    A pixel comes from the tile it lies in; where there is none, from the frame of the first tile
    (by row, then column) that reaches it. Every file is read once, one at a time.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        settings: TileSettings,
        panel: Sequence[str],
        sections: int,
        around: Rect | None = None,
    ) -> None:
        """List the tiles; of the plane's pixels those in `around` are read, by default all.

        Raises UserError for a source without tiles and names that contradict themselves.
        """
        self.path, self.names, self.sections = Path(path), settings.names or tuple(panel), sections
        self.genes = settings.genes or len(self.names)
        everywhere = find_tiles(self.path)
        self.bounds = _bounds(everywhere)
        self.tiles = {
            place: tile
            for place, tile in everywhere.items()
            if around is None or _framed(place).cut(around) != EMPTY
        }
        self.molecules: Counter[str] = Counter(dict.fromkeys(self.names, 0))
        self.overlaps = Overlaps()

    @property
    def extent(self) -> Rect:
        """The smallest rectangle that holds the frames of all tiles that are read, in pixels."""
        return _bounds(self.tiles).grown(FRAME) if self.tiles else EMPTY

    def lacking(self, region: Rect) -> list[Position]:
        """Return the tiles that `region` wants for pixels that no other tile's frame reaches."""
        rows = range(region.y // FRAME, -(-region.bottom // FRAME))
        columns = range(region.x // FRAME, -(-region.right // FRAME))
        quarters = ((row, column) for row in rows for column in columns)
        bare = (quarter for quarter in quarters if _owner(quarter, self.tiles) is None)
        return sorted({(row // 2, column // 2) for row, column in bare})

    def read(self, index: Mapping[str, int]) -> Iterator[Molecules]:
        """Yield the molecules of the genes in `index`, which maps names to the panel's indices."""
        targets = np.array([index.get(name, -1) for name in self.names])
        for (row, column), tile in self.tiles.items():
            framed = read_tile(tile, sections=self.sections, genes=self.genes)
            channel = framed.section * self.genes + framed.gene
            self.overlaps.compare(tile, (row, column), channel, framed)
            owned = _owned((row, column), self.tiles)
            mine = framed.take(owned[framed.y // FRAME, framed.x // FRAME])
            self._tally(tile, mine)
            y, x = mine.y + row * TILE - FRAME, mine.x + column * TILE - FRAME
            gene = targets[mine.gene]
            yield Molecules(mine.section, y, x, gene, mine.count).take(gene >= 0)

    def summary(self) -> dict[str, int]:
        """Return the number of tiles read, and of quarter tiles on which two of them differ."""
        return {"tiles": len(self.tiles), "differing_quarter_tiles": self.overlaps.differing}

    def _tally(self, tile: TileFile, counts: Molecules) -> None:
        if counts.gene.max(initial=0) >= len(self.names):
            raise UserError(
                f"{tile}: molecules of gene {counts.gene.max()} with a panel of"
                f" {len(self.names)} genes: give the panel the tiles were made with"
            )
        sums = np.zeros(len(self.names), np.int64)
        np.add.at(sums, counts.gene, counts.count)
        self.molecules.update(dict(zip(self.names, sums.tolist(), strict=True)))


def import_tiles(
    source: Path | str,
    raster_path: Path | str,
    *,
    panel: Sequence[str] | None = None,
    genes: int | None = None,
    sections: int | None = None,
    pixel_size_um: float | None = None,
    section_spacing_um: float | None = None,
) -> dict[str, Any]:
    """Turn published tiles, a folder or a zip, into a raster over the union of the frames.

    The last axis is sections * genes: give one of the two, or a panel (genes = its length), else
    there are 500 genes as published. Genes beyond a panel shorter than `genes` must have no
    molecule; without a panel genes are named gene_0 and so on.
    Returns sections, genes, tiles, molecules and extent. Raises UserError for faulty tiles.
    """
    path = Path(source)
    axis = _last_axis(next(iter(find_tiles(path).values())))
    genes = genes or (axis // sections if sections else len(panel or ()) or PUBLISHED_GENES)
    sections = sections or (axis // genes if genes else 0)
    if not genes or sections * genes != axis:
        raise UserError(
            f"{path}: a last axis of {axis} is not {sections} sections x {genes} genes:"
            " give the right sections, genes or panel"
        )
    names = tuple(panel or (f"gene_{gene}" for gene in range(genes)))
    tiles = ExpressionTiles(path, settings=TileSettings(genes), panel=names, sections=sections)
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


def _framed(tile: Position) -> Rect:
    """Return the pixels of a tile with its frame."""
    return Rect(tile[0] * TILE, tile[1] * TILE, TILE, TILE).grown(FRAME)


def _bounds(tiles: Mapping[Position, TileFile]) -> Rect:
    """Return the smallest rectangle that holds all tiles without their frames, in pixels."""
    rows, columns = zip(*tiles, strict=True)
    top, left = min(rows) * TILE, min(columns) * TILE
    return Rect(top, left, (max(rows) + 1) * TILE - top, (max(columns) + 1) * TILE - left)


def _owned(tile: Position, tiles: Container[Position]) -> NDArray[np.bool_]:
    """Return which of the 4 x 4 quarter tiles under a tile's frame are to be read from it."""
    quarters = [[(2 * tile[0] - 1 + i, 2 * tile[1] - 1 + j) for j in range(4)] for i in range(4)]
    return np.array([[_owner(quarter, tiles) == tile for quarter in row] for row in quarters])


def _owner(quarter: Position, tiles: Container[Position]) -> Position | None:
    """Return the tile around a quarter tile, or else the first whose frame reaches it."""
    home = (quarter[0] // 2, quarter[1] // 2)
    rows, columns = ({(edge - 1) // 2, (edge + 1) // 2} for edge in quarter)
    around = sorted((row, column) for row in rows for column in columns)
    return next((tile for tile in [home, *around] if tile in tiles), None)


def _last_axis(tile: TileFile) -> int:
    shape = tile.arrays()["shape"].tolist()
    framed = isinstance(shape, list) and len(shape) == 3 and shape[:2] == [SPAN, SPAN]
    _require(framed, tile, f"shape {shape}: ({SPAN}, {SPAN}, sections x genes) expected")
    return int(shape[2])


def read_tile(tile: TileFile, *, sections: int, genes: int) -> Molecules:
    """Return the entries of a tile, in pixels of its frame; UserError unless they are counts."""
    members = tile.arrays()
    shape, expected = members["shape"].tolist(), [SPAN, SPAN, sections * genes]
    coords, data = members["coords"], members["data"]
    _require(
        shape == expected,
        tile,
        f"shape {shape}: {expected} expected for {sections} sections of {genes} genes",
    )
    _require(
        data.ndim == 1 and coords.shape == (3, len(data)) and coords.dtype.kind in "iu",
        tile,
        f"{coords.dtype} coords of shape {coords.shape} for data of shape {data.shape}:"
        " integers of shape (3, n) expected",
    )
    inside = (coords >= 0).all() and (coords < np.array(expected)[:, None]).all()
    _require(bool(inside), tile, f"coords beyond the shape {expected}")
    numbers = data.dtype.kind in "iuf"
    _require(numbers, tile, f"data of type {data.dtype}: whole counts of at least 0 expected")
    strange = data[~((data >= 0) & (data <= MAX_COUNT) & (data == np.floor(data)))]
    _require(
        not len(strange), tile, f"count {strange[:1].tolist()}: whole counts of at least 0 expected"
    )
    _require(not members["fill_value"].any(), tile, "fill_value: 0 expected")
    y, x, channel = coords.astype(np.int64)
    return Molecules(channel // genes, y, x, channel % genes, data.astype(np.int64))


def _require(condition: bool, tile: TileFile, fault: str) -> None:
    if not condition:
        raise UserError(f"{tile}: {fault}")
