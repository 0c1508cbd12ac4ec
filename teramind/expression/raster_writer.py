"""Writing an expression raster from molecules in any order, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from teramind.errors import UserError
from teramind.expression.raster_format import BLOCK, LOST, VERSION, block_grid, section_name
from teramind.expression.spill import MAX_COUNT, Spill, pack, unpack
from teramind.files import flush, scratch_folder
from teramind.geometry import BIN, Rect

_CHUNK = 1 << 18
_MOST_BLOCKS = 1 << 22
"""Blocks of a section, or rows of blocks in all sections: 4e12 pixels, 2 million pixels square."""

Integers = NDArray[np.integer]


def _describe(path: Path) -> dict[str, str | int]:
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    return {"name": path.name, "bytes": sum(file.stat().st_size for file in files)}


class RasterWriter:
    """Writes a raster from molecules in any order, in bounded memory.

    A context manager: the raster appears under its name at the end of the block, and after an
    exception nothing is left. `outside` counts the molecules of each gene beyond `bounds`, of which
    those inside the extent are kept; `molecules_per_section` is known when the raster is.
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

        `bounds` is the part of the plane that images are generated on, None the whole extent;
        molecules beyond it, rounded outwards to bins, count as outside.

        Raises UserError if `path` exists, or the extent, panel or number of sections is empty.
        """
        self.path, self.panel, self.sections = Path(path), tuple(panel), sections
        self.extent = extent.rounded_out(BIN)
        self.bounds = (bounds or extent).rounded_out(BIN)
        if self.path.exists():
            raise UserError(f"{path} exists: remove it or write the raster under another name")
        if min(extent.height, extent.width, sections) < 1:
            raise UserError(
                f"{path}: extent {tuple(extent)} with {sections} sections is empty:"
                " height, width and sections must be at least 1"
            )
        rows, columns = block_grid(self.extent)
        if max(rows * columns, rows * sections) > _MOST_BLOCKS:
            raise UserError(
                f"{path}: extent {tuple(extent)} with {sections} sections is larger than"
                " any tissue: look for stray coordinates, or give the extent"
            )
        if not 0 < len(self.panel) < LOST:
            raise UserError(f"{path}: panel of {len(self.panel)} genes: 1 to {LOST - 1} possible")
        self.outside = np.zeros(len(self.panel), np.int64)
        self.molecules_per_section: list[int] = []
        self._kept = 0
        self._attributes = {
            "pixel_size_um": pixel_size_um,
            "section_spacing_um": section_spacing_um,
            "sources": [_describe(source) for source in sources],
            "bounds": list(bounds or self.extent),
        }

    def __enter__(self) -> Self:
        self._scratch = ExitStack()
        self._folder = self._scratch.enter_context(scratch_folder(self.path))
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
            self._scratch.close()

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
        beyond = ~_inside(self.bounds, y, x)
        np.add.at(self.outside, gene[beyond], count[beyond].astype(np.int64))
        inside = _inside(self.extent, y, x)
        self._kept += int(count[inside].sum(dtype=np.int64))
        bin_y = y.astype(np.int64) // BIN - self.extent.y // BIN
        bin_x = x.astype(np.int64) // BIN - self.extent.x // BIN
        kept = inside & (count > 0)
        bin_y, bin_x = bin_y[kept], bin_x[kept]
        rows, _ = block_grid(self.extent)
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
        if sum(molecules) != self._kept:
            raise RuntimeError(f"{self._kept} molecules added, {sum(molecules)} written")
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
        flush(self._folder / "raster")
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
        rows, columns = block_grid(self.extent)
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


def _inside(rect: Rect, y: Integers, x: Integers) -> NDArray[np.bool_]:
    """Which pixels lie in a rectangle."""
    return (y >= rect.y) & (y < rect.bottom) & (x >= rect.x) & (x < rect.right)


def _create_section(
    group: zarr.Group, section: int, pointer: NDArray[np.int64], count: np.dtype[Any]
) -> dict[str, Any]:
    """Create a section's arrays, write its block pointer, and return the others, still empty."""
    target = group.create_group(section_name(section))
    target.create_array(
        "block_pointer", data=pointer, chunks=pointer.shape, fill_value=-1, compressors=ZstdCodec()
    )
    code = np.dtype(np.uint16)
    fills = {"bin": (code, LOST), "gene": (code, LOST), "count": (count, 0)}
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
