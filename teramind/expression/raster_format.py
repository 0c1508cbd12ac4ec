"""The expression raster: molecules per bin, section and gene, as sparse blocks in Zarr v3.

A bin is 16 x 16 pixels (`geometry.BIN`), a block 64 x 64 bins; blocks tile the extent row by row
from its top left corner. The group `section_000` and its like hold three flat arrays `bin` (inside
the block, row-major), `gene` and `count`, sorted by block, bin and gene, and `block_pointer`: block
b owns the entries [block_pointer[b], block_pointer[b + 1]). The arrays' fill values are values no
entry can have, so a lost chunk is noticed when it is read.
"""

from __future__ import annotations

import numpy as np

from teramind.geometry import BIN, Rect

BLOCK = 64
"""Edge of one block in bins."""

VERSION = 1
"""Of the format; the attribute `version`."""

LOST = int(np.iinfo(np.uint16).max)
"""Fill value of `bin` and `gene`: no entry has it."""


def section_name(section: int) -> str:
    """Return the name of a section's group."""
    return f"section_{section:03d}"


def block_grid(extent: Rect) -> tuple[int, int]:
    """Return the rows and columns of blocks that cover the extent."""
    edge = BLOCK * BIN
    return -(-extent.height // edge), -(-extent.width // edge)
