"""Reading an expression raster: dense counts of any rectangle, touching its blocks only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from teramind.errors import UserError, foreign
from teramind.expression.raster_format import (
    BLOCK,
    VERSION,
    block_grid,
    require_attributes,
    section_name,
)
from teramind.geometry import BIN, Rect

_CACHE_BYTES = 64 << 20
_ATTRIBUTES = (
    *("version", "panel", "pixel_size_um", "section_spacing_um", "sections", "extent"),
    *("sources", "molecules_per_section", "bounds"),
)


@dataclass(frozen=True)
class _Entries:
    """Entries of the raster: bins of the rectangle asked for (or of the block), gene and count."""

    y: NDArray[np.integer]
    x: NDArray[np.integer]
    gene: NDArray[np.uint16]
    count: NDArray[np.unsignedinteger]

    @property
    def nbytes(self) -> int:
        return sum(values.nbytes for values in vars(self).values())


class Raster:
    """An expression raster opened for reading; recently read blocks are kept, bounded in bytes."""

    def __init__(
        self, path: Path, group: zarr.Group, attributes: dict[str, Any], cache_bytes: int
    ) -> None:
        """Use `Raster.open`."""
        self._path, self._group, self._attributes = path, group, attributes
        self._arrays: dict[int, dict[str, Any]] = {}
        self._cache: OrderedDict[tuple[int, int], _Entries] = OrderedDict()
        self._cached_bytes, self._cache_bytes = 0, cache_bytes

    @classmethod
    def open(cls, path: Path | str, *, cache_bytes: int = _CACHE_BYTES) -> Raster:
        """Open the raster at `path`.

        Raises UserError if there is none, it is something else, or parts are missing.
        """
        path = Path(path)
        if not path.exists():
            raise UserError(f"{path}: no such expression raster: run bin_expression first")
        with foreign(f"{path}: not an expression raster"):
            group = zarr.open_group(path, mode="r", zarr_format=3)
            attributes = dict(group.attrs)
        absent = [name for name in _ATTRIBUTES if name not in attributes]
        if absent or attributes["version"] != VERSION:
            raise UserError(
                f"{path}: not an expression raster of version {VERSION}:"
                f" attributes missing: {', '.join(absent) or 'none'},"
                f" version {attributes.get('version')}: write it with bin_expression"
            )
        with foreign(f"{path}: damaged, write it again"):
            require_attributes(attributes)
        raster = cls(path, group, attributes, cache_bytes)
        raster._require_files()
        return raster

    @property
    def panel(self) -> tuple[str, ...]:
        """Gene names; a gene's place is its index on the gene axis."""
        return tuple(self._attributes["panel"])

    @property
    def pixel_size_um(self) -> float | None:
        """Edge of a pixel in micrometres, if known."""
        value = self._attributes["pixel_size_um"]
        return None if value is None else float(value)

    @property
    def section_spacing_um(self) -> float | None:
        """Distance between sections in micrometres, if known."""
        value = self._attributes["section_spacing_um"]
        return None if value is None else float(value)

    @property
    def sections(self) -> int:
        """Number of sections."""
        return int(self._attributes["sections"])

    @property
    def extent(self) -> Rect:
        """The part of the plane that the raster covers, on bin edges."""
        return Rect(*(int(value) for value in self._attributes["extent"]))

    @property
    def bounds(self) -> Rect:
        """The part of the plane that images are generated on; expression may reach beyond it."""
        return Rect(*(int(value) for value in self._attributes["bounds"]))

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Name and bytes of each file or folder the molecules came from."""
        return list(self._attributes["sources"])

    @property
    def molecules_per_section(self) -> tuple[int, ...]:
        """Molecules in each section."""
        return tuple(int(value) for value in self._attributes["molecules_per_section"])

    def counts(self, *, sections: Sequence[int], rect: Rect) -> NDArray[np.unsignedinteger]:
        """Return molecules per (bin_y, bin_x, section, gene) under `rect`, dense.

        The smallest unsigned type that holds them. Sections that do not exist and bins outside the
        extent are zero. Raises ValueError unless the rectangle's edges are bin edges.
        """
        found = [list(self._entries(section, rect)) for section in sections]
        parts = [entries for section in found for entries in section]
        largest = max((int(entries.count.max(initial=0)) for entries in parts), default=0)
        shape = (rect.height // BIN, rect.width // BIN, len(sections), len(self.panel))
        dense = np.zeros(shape, np.min_scalar_type(largest))
        for place, section in enumerate(found):
            for entries in section:
                dense[entries.y, entries.x, place, entries.gene] = entries.count
        return dense

    def totals(self, *, section: int, rect: Rect) -> NDArray[np.int64]:
        """Return molecules of all genes per (bin_y, bin_x) under `rect`; edges as in `counts`."""
        total = np.zeros((rect.height // BIN, rect.width // BIN), np.int64)
        for entries in self._entries(section, rect):
            np.add.at(total, (entries.y, entries.x), entries.count.astype(np.int64))
        return total

    def occupied(self, *, section: int, rect: Rect, edge: int) -> NDArray[np.bool_]:
        """Tell which squares of `edge` pixels under `rect` hold a molecule: (square y, square x).

        Reads where the molecules lie and nothing else of the section, a row of blocks at a time.
        `edge` must be a multiple of a bin, and the rectangle's sides multiples of `edge`.
        """
        found = np.zeros((rect.height // edge, rect.width // edge), bool)
        pointers = self._section_arrays(section)["block_pointer"]
        rows, columns = block_grid(self.extent)
        for row in range(rows):
            pointer = pointers[row * columns : (row + 1) * columns + 1]
            bins = self._stored(section, "bin", pointer).astype(np.int64)
            block = np.repeat(np.arange(columns), np.diff(pointer))
            y = (self.extent.y - rect.y + BIN * (row * BLOCK + bins // BLOCK)) // edge
            x = (self.extent.x - rect.x + BIN * (block * BLOCK + bins % BLOCK)) // edge
            inside = (y >= 0) & (y < found.shape[0]) & (x >= 0) & (x < found.shape[1])
            found[y[inside], x[inside]] = True
        return found

    def _entries(self, section: int, rect: Rect) -> Iterator[_Entries]:
        """Yield the entries under `rect`, block by block, in bins from its top left corner."""
        if any(edge % BIN for edge in rect) or min(rect.height, rect.width) < 0:
            raise ValueError(f"edges of {rect} are not multiples of {BIN} pixels")
        if not 0 <= section < self.sections:
            return
        top, left = (rect.y - self.extent.y) // BIN, (rect.x - self.extent.x) // BIN
        bottom, right = top + rect.height // BIN, left + rect.width // BIN
        rows, columns = block_grid(self.extent)
        first, last = max(left // BLOCK, 0), min(-(-right // BLOCK), columns)
        for row in range(max(top // BLOCK, 0), min(-(-bottom // BLOCK), rows)):
            for column, block in enumerate(self._blocks(section, row, first, last), first):
                y = block.y + np.int64(row * BLOCK - top)
                x = block.x + np.int64(column * BLOCK - left)
                under = (y >= 0) & (y < bottom - top) & (x >= 0) & (x < right - left)
                yield _Entries(y[under], x[under], block.gene[under], block.count[under])

    def _blocks(self, section: int, row: int, first: int, last: int) -> list[_Entries]:
        """Return the blocks [first, last) of a row, reading those not kept in one go."""
        start = row * block_grid(self.extent)[1]
        numbers = range(start + first, start + last)
        kept = {b: self._cache[section, b] for b in numbers if (section, b) in self._cache}
        lacking = [b for b in numbers if b not in kept]
        if lacking:
            kept.update(self._read(section, lacking[0], lacking[-1] + 1))
        for number in numbers:
            self._keep((section, number), kept[number])
        return [kept[number] for number in numbers]

    def _read(self, section: int, first: int, last: int) -> dict[int, _Entries]:
        """Read the consecutive blocks [first, last) of a section."""
        pointer = self._section_arrays(section)["block_pointer"][first : last + 1]
        bins, gene, count = (
            self._stored(section, name, pointer) for name in ("bin", "gene", "count")
        )
        y, x = (bins // BLOCK).astype(np.uint8), (bins % BLOCK).astype(np.uint8)
        parts = [slice(a, b) for a, b in pairwise((pointer - pointer[0]).tolist())]
        return {
            number: _Entries(y[part].copy(), x[part].copy(), gene[part].copy(), count[part].copy())
            for number, part in enumerate(parts, first)
        }

    def _stored(self, section: int, name: str, pointer: NDArray[np.int64]) -> NDArray[Any]:
        """Read what consecutive blocks have in one of a section's arrays; UserError if it is lost.

        `pointer` is that of the blocks, and of the one behind them.
        """
        where = f"{self._path}/{section_name(section)}"
        with foreign(f"{where}: damaged, write it again"):
            array = self._section_arrays(section)[name]
            values: NDArray[Any] = array[int(pointer[0]) : int(pointer[-1])]
        most = {"bin": BLOCK * BLOCK, "gene": len(self.panel)}
        if (values == 0 if name == "count" else values >= most[name]).any():
            raise UserError(f"{where}: chunks lost: write it again")
        return values

    def _keep(self, key: tuple[int, int], block: _Entries) -> None:
        if key not in self._cache:
            self._cache[key] = block
            self._cached_bytes += block.nbytes
        self._cache.move_to_end(key)
        while self._cached_bytes > self._cache_bytes:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= oldest.nbytes

    def _section_arrays(self, section: int) -> dict[str, Any]:
        """Return a section's arrays, the block pointer in memory; UserError if they disagree."""
        if section not in self._arrays:
            rows, columns = block_grid(self.extent)
            with foreign(f"{self._path}/{section_name(section)}: damaged, write it again"):
                group: Any = self._group[section_name(section)]
                arrays = {name: group[name] for name in ("bin", "gene", "count")}
                pointed = group["block_pointer"]
                sound = pointed.shape == (rows * columns + 1,)
                pointer = pointed[:] if sound else np.zeros(2, np.int64)
                lengths = {values.shape for values in arrays.values()} | {(int(pointer[-1]),)}
            entries = np.diff(pointer)
            if (
                not sound
                or len(lengths) != 1
                or entries.min() < 0
                or entries.max() > BLOCK * BLOCK * len(self.panel)
            ):
                raise UserError(
                    f"{self._path}/{section_name(section)}: its arrays disagree: write it again"
                )
            self._arrays[section] = {**arrays, "block_pointer": pointer}
        return self._arrays[section]

    def _require_files(self) -> None:
        """Raise UserError unless the metadata of every section's arrays is there."""
        for section in range(self.sections):
            for name in ("bin", "gene", "count", "block_pointer"):
                file = self._path / section_name(section) / name / "zarr.json"
                if not file.is_file():
                    raise UserError(f"{file}: missing, the raster is half-written: write it again")
