"""The expression raster: molecules per bin, section and gene, as sparse blocks in Zarr v3.

A bin is 16 x 16 pixels (`geometry.BIN`), a block 64 x 64 bins; blocks tile the extent row by row
from its top left corner. The group `section_000` and its like hold three flat arrays `bin` (inside
the block, row-major), `gene` and `count`, sorted by block, bin and gene, and `block_pointer`: block
b owns the entries [block_pointer[b], block_pointer[b + 1]). The arrays' fill values are values no
entry can have, so a lost chunk is noticed when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from teramind.geometry import BIN, Rect
from teramind.units import is_length

BLOCK = 64
"""Edge of one block in bins."""

VERSION = 1
"""Version of the format; the attribute `version`."""

LOST = int(np.iinfo(np.uint16).max)
"""Fill value of `bin` and `gene`: no entry has it."""


def require_attributes(attributes: Mapping[str, Any]) -> None:
    """Raise ValueError unless a raster's attributes are of their kinds and fit together."""
    panel, sections = attributes["panel"], attributes["sections"]
    sound = {
        "panel": type(panel) is list and panel and all(type(gene) is str for gene in panel),
        "sections": type(sections) is int and sections > 0,
        "extent": _is_rect(attributes["extent"], BIN),
        "bounds": _is_rect(attributes["bounds"], 1),
        "pixel_size_um": is_length(attributes["pixel_size_um"]),
        "section_spacing_um": is_length(attributes["section_spacing_um"]),
        "sources": type(attributes["sources"]) is list,
        "molecules_per_section": type(attributes["molecules_per_section"]) is list,
    }
    for name, right in sound.items():
        if not right:
            raise ValueError(f"its {name} cannot be {attributes[name]!r}")


def _is_rect(value: Any, step: int) -> bool:
    whole = type(value) is list and len(value) == 4 and all(type(v) is int for v in value)
    return whole and min(value[2:]) > 0 and not any(edge % step for edge in value)


def section_name(section: int) -> str:
    """Return the name of a section's group."""
    return f"section_{section:03d}"


def block_grid(extent: Rect) -> tuple[int, int]:
    """Return the rows and columns of blocks that cover the extent."""
    edge = BLOCK * BIN
    return -(-extent.height // edge), -(-extent.width // edge)
