"""From any supported data set to an expression raster: read, match genes, bin."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from teramind.config.values import Outside
from teramind.expression.cells import CellSettings, CellTable
from teramind.expression.molecules import MoleculeSettings, MoleculeTable
from teramind.expression.panel import PanelMatch, match_genes
from teramind.expression.plausible import (
    require_few_outside,
    require_no_hole,
    require_overlap,
    require_spread,
    tell_differing,
    tell_empty,
)
from teramind.expression.raster_writer import RasterWriter
from teramind.expression.source import Source
from teramind.expression.tiles import ExpressionTiles, TileSettings
from teramind.files import atomic_path
from teramind.geometry import Rect

Settings = MoleculeSettings | CellSettings | TileSettings

_PROGRESS_SECONDS = 5.0


def bin_expression(
    *,
    source: Path | str,
    raster_path: Path | str,
    panel: Sequence[str],
    genes: int | None = None,
    sections: int,
    extent: Rect | None,
    panel_table_path: Path | str,
    settings: Settings,
    pixel_size_um: float | None = None,
    section_spacing_um: float | None = None,
    minimum_overlap: float = 0.5,
    synonyms: Mapping[str, str] | None = None,
    outside: Outside = "error",
    region: Rect | None = None,
    around: Rect | None = None,
    bounds: Rect | None = None,
) -> dict[str, Any]:
    """Bin a data set into a raster and write the panel table (TSV).

    Args:
        source: the data: a table, an AnnData file, or published tiles.
        raster_path: raster to write; must not exist.
        panel: genes of the raster, in order.
        genes: how many of the panel, the first ones, the network reads, None all. The others are
            put into the raster, too, for they show where tissue is, and counted as other genes.
        sections: of the plane.
        extent: what the raster holds, in pixels of the plane; None all of the data.
        panel_table_path: TSV to write, a row per gene of data and panel.
        settings: say what the data are and how to read them.
        pixel_size_um: edge of a pixel; data in pixels need none.
        section_spacing_um: distance of sections, for the record.
        minimum_overlap: share of the genes that the network reads that the data must have.
        synonyms: name in the data -> name in the panel.
        outside: "skip" cuts the extent out of larger data, "error" accepts 1 % of molecules outside
            the bounds.
        region: what will be generated, in pixels. Tiles must cover it, where one is missing by
            their neighbours' frames, and other data overlap it.
        around: of tiles only those that reach it are read; None all.
        bounds: the volume, in pixels, around which the extent holds what drawing it reads; None
            the extent.

    Returns:
        Numbers for the record and the report.

    Raises:
        UserError: when the data cannot be read or be what the arguments say, or too few of the
            genes are in them; then no raster is left.
    """
    path = Path(source)
    data = _open(
        path,
        settings,
        panel=panel,
        sections=sections,
        pixel_size_um=pixel_size_um,
        around=around,
    )
    if region and isinstance(data, ExpressionTiles):
        require_overlap(path, region, data.bounds, whole=True)
        require_no_hole(path, region, data)
    match = match_genes(data.molecules, panel, synonyms)
    read = match.first(len(panel) if genes is None else genes)
    read.require(minimum_overlap)
    if extent:
        require_spread(path, region or extent, data.extent)
    writer = RasterWriter(
        raster_path,
        panel=panel,
        sections=sections,
        extent=extent or data.extent,
        pixel_size_um=pixel_size_um,
        section_spacing_um=section_spacing_um,
        bounds=bounds,
        sources=[path],
    )
    with writer:
        molecules = _fill(writer, data, match)
        expected = sum(data.molecules[name] for name in match.index)
        if molecules != expected:
            raise RuntimeError(f"{path}: {expected} molecules counted, {molecules} read")
        if outside == "error" and extent:
            require_few_outside(path, writer, molecules, data.extent)
        if region:
            require_overlap(path, region, data.extent, whole=False)
    if isinstance(data, ExpressionTiles):
        tell_differing(path, data)
    tell_empty(path, writer)
    _write_table(read.table(data.molecules), Path(panel_table_path))
    return _numbers(writer, data, read)


def _numbers(writer: RasterWriter, data: Source, match: PanelMatch) -> dict[str, Any]:
    """What the network reads of the data, and what the raster holds, for record and report."""
    return {
        "molecules": sum(data.molecules[name] for name in match.index),
        "molecules_in_raster": sum(writer.molecules_per_section),
        "molecules_outside": int(writer.outside[: len(match.panel)].sum()),
        "lookalikes": {name: data.molecules[name] for name in match.lookalikes},
        "molecules_of_other_genes": sum(data.molecules[name] for name in match.extra),
        "molecules_per_section": writer.molecules_per_section,
        "panel_genes": len(match.panel),
        "panel_genes_matched": len(match.matched),
        "panel_fraction": match.fraction,
        "extent": list(writer.extent),
        "data_extent": list(data.extent),
        **(data.summary() if isinstance(data, ExpressionTiles) else {}),
    }


def _open(
    path: Path,
    settings: Settings,
    *,
    panel: Sequence[str],
    sections: int,
    pixel_size_um: float | None,
    around: Rect | None,
) -> Source:
    """Return the reader that the settings are for, its sections matched."""
    if isinstance(settings, TileSettings):
        return ExpressionTiles(
            path, settings=settings, panel=panel, sections=sections, around=around
        )
    table: MoleculeTable | CellTable
    if isinstance(settings, CellSettings):
        table = CellTable(path, settings=settings, pixel_size_um=pixel_size_um)
    else:
        table = MoleculeTable(path, settings=settings, pixel_size_um=pixel_size_um)
    table.match(sections)
    return table


def _fill(writer: RasterWriter, data: Source, match: PanelMatch) -> int:
    """Write all molecules of matched genes; return their number, those outside included."""
    total, rows, told = 0, 0, time.monotonic()
    for chunk in data.read(match.index):
        writer.add(**vars(chunk))
        total += int(chunk.count.sum())
        rows += len(chunk.count)
        if time.monotonic() - told > _PROGRESS_SECONDS:
            told = time.monotonic()
            print(f"{writer.path.name}: {rows:,} rows, {total:,} molecules", file=sys.stderr)
    return total


def _write_table(table: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False)
