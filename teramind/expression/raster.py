"""The expression raster: molecules per bin, section and gene, as sparse blocks in Zarr v3.

A bin is 16 x 16 pixels (`geometry.BIN`), a block 64 x 64 bins; blocks tile the extent row by row
from its top left corner. The group `section_000` and its like hold three flat arrays `bin` (inside
the block, row-major), `gene` and `count`, sorted by block, bin and gene, and `block_pointer`: block
b owns the entries [block_pointer[b], block_pointer[b + 1]). The arrays' fill values are values no
entry can have, so a lost chunk is noticed when it is read.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from teramind.errors import UserError
from teramind.expression.spill import MAX_COUNT, Spill, pack, unpack
from teramind.geometry import BIN, Rect

BLOCK = 64
"""Edge of one block in bins."""

VERSION = 1
_CHUNK = 1 << 18
_CACHE_BYTES = 64 << 20
_LOST = int(np.iinfo(np.uint16).max)
_ATTRIBUTES = (
    *("version", "panel", "pixel_size_um", "section_spacing_um", "sections", "extent"),
    *("sources", "molecules_per_section", "bounds"),
)

Integers = NDArray[np.integer]


def section_name(section: int) -> str:
    """Return the name of a section's group."""
    return f"section_{section:03d}"


def round_to_bins(rect: Rect) -> Rect:
    """Return the smallest rectangle on bin edges that holds `rect`."""
    top, left = rect.y // BIN * BIN, rect.x // BIN * BIN
    bottom, right = -(-rect.bottom // BIN) * BIN, -(-rect.right // BIN) * BIN
    return Rect(top, left, bottom - top, right - left)


def _grid(extent: Rect) -> tuple[int, int]:
    """Return the rows and columns of blocks that cover the extent."""
    edge = BLOCK * BIN
    return -(-extent.height // edge), -(-extent.width // edge)


def _describe(path: Path) -> dict[str, str | int]:
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    return {"name": path.name, "bytes": sum(file.stat().st_size for file in files)}


class RasterWriter:
    """Writes a raster from molecules in any order, in bounded memory.

    A context manager: the raster appears under its name at the end of the block, and after an
    exception nothing is left. `outside` counts the molecules skipped for being outside the extent;
    `molecules_per_section` is known when the raster is.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        panel: Sequence[str],
        sections: int,
        extent: Rect,
        pixel_size_um: float | None = None,
        section_spacing_um: float | None = None,
        sources: Sequence[Path] = (),
        bounds: Rect | None = None,
    ) -> None:
        """Prepare a raster of `sections` sections; `extent` is rounded outwards to bins.

        `bounds` is the part of the plane that images are generated on, None the whole extent.

        Raises UserError if `path` exists, or the extent, panel or number of sections is empty.
        """
        self.path, self.panel, self.sections = Path(path), tuple(panel), sections
        self.extent = round_to_bins(extent)
        if self.path.exists():
            raise UserError(f"{path} exists: remove it or write the raster under another name")
        if min(extent.height, extent.width, sections) < 1:
            raise UserError(
                f"{path}: extent {tuple(extent)} with {sections} sections is empty:"
                " height, width and sections must be at least 1"
            )
        if not 0 < len(self.panel) < _LOST:
            raise UserError(f"{path}: panel of {len(self.panel)} genes: 1 to {_LOST - 1} possible")
        self.outside = 0
        self.molecules_per_section: list[int] = []
        self._inside = 0
        self._attributes = {
            "pixel_size_um": pixel_size_um,
            "section_spacing_um": section_spacing_um,
            "sources": [_describe(source) for source in sources],
            "bounds": list(bounds or self.extent),
        }

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
        self._spill = Spill(self._folder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(
        self,
        *,
        section: Integers,
        y: Integers,
        x: Integers,
        gene: Integers,
        count: Integers | None = None,
    ) -> None:
        """Add molecules at pixels (y, x) of the plane; `gene` is an index in the panel.

        All arrays have one length; `count` None means one molecule per entry. Raises ValueError for
        unequal lengths, sections or genes that do not exist, and counts that do not fit 32 bits.
        """
        count = np.ones(len(y), np.uint32) if count is None else count
        self._check(section=section, y=y, x=x, gene=gene, count=count)
        bin_y = y.astype(np.int64) // BIN - self.extent.y // BIN
        bin_x = x.astype(np.int64) // BIN - self.extent.x // BIN
        inside = (bin_y >= 0) & (bin_y < self.extent.height // BIN)
        inside &= (bin_x >= 0) & (bin_x < self.extent.width // BIN)
        self.outside += int(count[~inside].sum(dtype=np.int64))
        self._inside += int(count[inside].sum(dtype=np.int64))
        kept = inside & (count > 0)
        bin_y, bin_x = bin_y[kept], bin_x[kept]
        rows, _ = _grid(self.extent)
        self._spill.add(
            file=section[kept].astype(np.int64) * rows + bin_y // BLOCK,
            key=pack(
                block=bin_x // BLOCK,
                bins=bin_y % BLOCK * BLOCK + bin_x % BLOCK,
                gene=gene[kept].astype(np.int64),
            ),
            count=count[kept],
        )

    def finish(self) -> None:
        """Sum the spilled molecules, write the arrays and give the raster its name."""
        self._spill.flush()
        group = zarr.open_group(self._folder / "raster", mode="w-", zarr_format=3)
        molecules = [self._write_section(group, section) for section in range(self.sections)]
        if sum(molecules) != self._inside:
            raise RuntimeError(f"{self._inside} molecules added, {sum(molecules)} written")
        group.attrs.update(
            {
                "version": VERSION,
                "panel": list(self.panel),
                "sections": self.sections,
                "extent": list(self.extent),
                "molecules_per_section": molecules,
                **self._attributes,
            }
        )
        (self._folder / "raster").rename(self.path)
        self.molecules_per_section = molecules

    def _check(self, **entries: Integers) -> None:
        lengths = {name: len(values) for name, values in entries.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"arrays of unequal length: {lengths}")
        limits = {"section": self.sections - 1, "gene": len(self.panel) - 1, "count": MAX_COUNT}
        for name, limit in limits.items():
            values = entries[name]
            if len(values) and not (values.min() >= 0 and values.max() <= limit):
                raise ValueError(f"{name} {values.min()}..{values.max()} leaves 0..{limit}")

    def _write_section(self, group: zarr.Group, section: int) -> int:
        """Write one section's arrays and return its number of molecules."""
        rows, columns = _grid(self.extent)
        files = range(section * rows, (section + 1) * rows)
        sizes, largest, molecules = [], 0, 0
        for file in files:
            records = self._spill.condense(file)
            sizes.append(np.bincount(unpack(records["key"])[0], minlength=columns))
            largest = max(largest, int(records["count"].max(initial=0)))
            molecules += int(records["count"].sum(dtype=np.int64))
        pointer = np.concatenate(([0], np.cumsum(np.concatenate(sizes)))).astype(np.int64)
        arrays = _create_section(group, section, pointer, np.min_scalar_type(largest))
        for row, file in enumerate(files):
            entries = slice(pointer[row * columns], pointer[(row + 1) * columns])
            if entries.start < entries.stop:
                records = self._spill.read(file)
                _, arrays["bin"][entries], arrays["gene"][entries] = unpack(records["key"])
                arrays["count"][entries] = records["count"].astype(arrays["count"].dtype)
        return molecules


def _create_section(
    group: zarr.Group, section: int, pointer: NDArray[np.int64], count: np.dtype[Any]
) -> dict[str, Any]:
    """Create a section's arrays, write its block pointer, and return the others, still empty."""
    target = group.create_group(section_name(section))
    target.create_array(
        "block_pointer", data=pointer, chunks=pointer.shape, fill_value=-1, compressors=ZstdCodec()
    )
    code = np.dtype(np.uint16)
    fills = {"bin": (code, _LOST), "gene": (code, _LOST), "count": (count, 0)}
    return {
        name: target.create_array(
            name,
            shape=(int(pointer[-1]),),
            dtype=dtype,
            chunks=(_CHUNK,),
            fill_value=fill,
            compressors=ZstdCodec(),
        )
        for name, (dtype, fill) in fills.items()
    }


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
        try:
            group = zarr.open_group(path, mode="r", zarr_format=3)
            attributes = dict(group.attrs)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path}: not an expression raster: {error}") from error
        absent = [name for name in _ATTRIBUTES if name not in attributes]
        if absent or attributes["version"] != VERSION:
            raise UserError(
                f"{path}: not an expression raster of version {VERSION}:"
                f" attributes missing: {', '.join(absent) or 'none'},"
                f" version {attributes.get('version')}: write it with bin_expression"
            )
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

    def _entries(self, section: int, rect: Rect) -> Iterator[_Entries]:
        """Yield the entries under `rect`, block by block, in bins from its top left corner."""
        if any(edge % BIN for edge in rect) or min(rect.height, rect.width) < 0:
            raise ValueError(f"edges of {rect} are not multiples of {BIN} pixels")
        if not 0 <= section < self.sections:
            return
        top, left = (rect.y - self.extent.y) // BIN, (rect.x - self.extent.x) // BIN
        bottom, right = top + rect.height // BIN, left + rect.width // BIN
        rows, columns = _grid(self.extent)
        first, last = max(left // BLOCK, 0), min(-(-right // BLOCK), columns)
        for row in range(max(top // BLOCK, 0), min(-(-bottom // BLOCK), rows)):
            for column, block in enumerate(self._blocks(section, row, first, last), first):
                y = block.y + np.int64(row * BLOCK - top)
                x = block.x + np.int64(column * BLOCK - left)
                under = (y >= 0) & (y < bottom - top) & (x >= 0) & (x < right - left)
                yield _Entries(y[under], x[under], block.gene[under], block.count[under])

    def _blocks(self, section: int, row: int, first: int, last: int) -> list[_Entries]:
        """Return the blocks [first, last) of a row, reading those not kept in one go."""
        start = row * _grid(self.extent)[1]
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
        arrays = self._section_arrays(section)
        pointer = arrays["block_pointer"][first : last + 1]
        span = slice(int(pointer[0]), int(pointer[-1]))
        bins, gene, count = (arrays[name][span] for name in ("bin", "gene", "count"))
        if (bins >= BLOCK * BLOCK).any() or (gene >= len(self.panel)).any() or (count == 0).any():
            raise UserError(f"{self._path}/{section_name(section)}: chunks lost: write it again")
        y, x = (bins // BLOCK).astype(np.uint8), (bins % BLOCK).astype(np.uint8)
        parts = [slice(a, b) for a, b in pairwise((pointer - span.start).tolist())]
        return {
            number: _Entries(y[part].copy(), x[part].copy(), gene[part].copy(), count[part].copy())
            for number, part in enumerate(parts, first)
        }

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
            group: Any = self._group[section_name(section)]
            arrays = {name: group[name] for name in ("bin", "gene", "count")}
            pointer = group["block_pointer"][:]
            lengths = {values.shape[0] for values in arrays.values()} | {int(pointer[-1])}
            rows, columns = _grid(self.extent)
            if (
                len(lengths) != 1
                or len(pointer) != rows * columns + 1
                or np.diff(pointer).min() < 0
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
