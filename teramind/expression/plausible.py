"""Whether a data set can be what the configuration says: what is refused, and what is only told.

Every line names the file. Nothing here looks at genes; that is `panel`'s.
"""

from __future__ import annotations

import sys
from pathlib import Path

from teramind.errors import UserError
from teramind.expression.raster_writer import RasterWriter
from teramind.expression.tile_file import TILE
from teramind.expression.tiles import ExpressionTiles
from teramind.geometry import BIN, EMPTY, Rect

MOST_OUTSIDE = 0.01
"""Largest share of molecules that may lie outside the bounds unless they are cut on purpose."""

LEAST_COVERED = 0.01
"""Smallest share of what is drawn, in height or width, that the molecules of a table may span."""


def require_spread(path: Path, drawn: Rect, data: Rect) -> None:
    """Refuse molecules in a spot, as millimetres read as micrometres give."""
    if data.height < LEAST_COVERED * drawn.height and data.width < LEAST_COVERED * drawn.width:
        raise UserError(
            f"{path}: all molecules lie in {_pixels(data)}, under {LEAST_COVERED:.0%} of height"
            f" and width of what is drawn, {_pixels(drawn)}: check units and pixel size"
        )


def require_few_outside(path: Path, writer: RasterWriter, molecules: int, data: Rect) -> None:
    """Refuse a table of which more than `MOST_OUTSIDE` of so many molecules were outside."""
    if writer.outside.sum() > MOST_OUTSIDE * molecules:
        raise UserError(
            f"{path}: {writer.outside.sum()} of {molecules} molecules lie outside the extent"
            f" {_pixels(writer.bounds)}; the data covers {_pixels(data)}:"
            " check the extent, origin, pixel size and units"
            f"{', and whether x and y are exchanged' * _exchanged(data, writer.bounds)}"
        )


def _exchanged(data: Rect, extent: Rect) -> bool:
    """Whether data would lie in the extent with x and y exchanged, a bin more or less."""
    turned = Rect(data.x, data.y, data.width, data.height)
    return turned.cut(extent.grown(BIN)) == turned


def require_overlap(path: Path, region: Rect, data: Rect, *, whole: bool) -> None:
    """Refuse a region that does not share pixels with the data or, with `whole`, leaves them."""
    shared = region.cut(data)
    if shared != region if whole else shared == EMPTY:
        raise UserError(
            f"region: {_pixels(region)} lie {'partly ' * (shared != EMPTY)}outside the data"
            f" {path}, which cover {_pixels(data)}"
        )


def require_no_hole(path: Path, region: Rect, data: ExpressionTiles) -> None:
    """Refuse a region with pixels of which no tile knows the expression."""
    lacking = data.lacking(region)
    if lacking:
        first = Rect(lacking[0][0] * TILE, lacking[0][1] * TILE, TILE, TILE)
        raise UserError(
            f"{path}: {len(lacking)} of the tiles under the region {_pixels(region)} are missing,"
            f" the first is that of {_pixels(first)}: unpack or fetch them all"
        )


def tell_empty(path: Path, writer: RasterWriter) -> None:
    """Say in the log how many sections of several hold nothing."""
    empty = writer.molecules_per_section.count(0)
    if 0 < empty < writer.sections:
        print(
            f"{path}: {empty} of {writer.sections} sections hold no molecules; section_values"
            " lists those of a table, in z order",
            file=sys.stderr,
        )


def tell_differing(path: Path, data: ExpressionTiles) -> None:
    """Say in the log on how much of their overlaps tiles contradict each other."""
    if data.overlaps.differing:
        print(
            f"{path}: overlapping tiles differ on {data.overlaps.differing} quarter tiles;"
            " each pixel was read from the tile it lies in",
            file=sys.stderr,
        )


def _pixels(rect: Rect) -> str:
    return f"y {rect.y}..{rect.bottom - 1}, x {rect.x}..{rect.right - 1} pixels"
