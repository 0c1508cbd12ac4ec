"""Where a volume lies on the plane of its expression."""

from __future__ import annotations

from typing import NamedTuple

from teramind.geometry import Rect
from teramind.volume import VolumeLayout


class Place(NamedTuple):
    """Where a volume lies: its first section and its rectangle of the plane in pixels."""

    first: int
    rect: Rect


def volume_place(layout: VolumeLayout) -> Place:
    """Read a volume's place off what its metadata say of its first voxel."""
    y, x = layout.attributes["first_pixel"]
    _, _, height, width = layout.shape
    return Place(int(layout.attributes["first_section"]), Rect(int(y), int(x), height, width))
