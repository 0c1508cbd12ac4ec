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
    """Read a volume's place off its origin: section k lies at k spacings, pixel i at i pixels."""
    z, y, x = layout.origin_um
    pixel, (_, _, height, width) = layout.pixel_size_um, layout.shape
    rect = Rect(round(y / pixel), round(x / pixel), height, width)
    return Place(round(z / layout.section_spacing_um), rect)
