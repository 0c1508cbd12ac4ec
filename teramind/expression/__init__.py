"""From molecules, cells or published tiles to the expression raster that a network reads.

Names are imported when first used, so that reading a raster needs zarr alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teramind.expression.cells import CellSettings
    from teramind.expression.extent import table_extent
    from teramind.expression.molecules import MoleculeColumns, MoleculeSettings
    from teramind.expression.panel import PanelMatch, match_genes, read_panel, read_synonyms
    from teramind.expression.raster import Raster
    from teramind.expression.raster_format import BLOCK
    from teramind.expression.raster_writer import RasterWriter
    from teramind.expression.tiles import TileSettings, import_tiles

__all__ = [
    "BLOCK",
    "CellSettings",
    "MoleculeColumns",
    "MoleculeSettings",
    "PanelMatch",
    "Raster",
    "RasterWriter",
    "TileSettings",
    "import_tiles",
    "match_genes",
    "read_panel",
    "read_synonyms",
    "table_extent",
]

_HOMES = {
    "raster": ("Raster",),
    "raster_format": ("BLOCK",),
    "raster_writer": ("RasterWriter",),
    "panel": ("PanelMatch", "match_genes", "read_panel", "read_synonyms"),
    "molecules": ("MoleculeColumns", "MoleculeSettings"),
    "cells": ("CellSettings",),
    "tiles": ("TileSettings", "import_tiles"),
    "extent": ("table_extent",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
