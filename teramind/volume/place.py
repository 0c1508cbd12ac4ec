"""Where a volume lies on the plane of its expression."""

from __future__ import annotations

from typing import NamedTuple

from teramind.errors import UserError
from teramind.geometry import Rect
from teramind.volume.layout import VolumeLayout


class VolumePlace(NamedTuple):
    """Where a volume lies: its first section and its rectangle of the plane in pixels."""

    first: int
    rect: Rect


def volume_place(layout: VolumeLayout) -> VolumePlace:
    """Read a volume's place off what its metadata say of its first voxel.

    Raises:
        UserError: when they say nothing.
    """
    _, _, height, width = layout.shape
    try:
        first, (y, x) = layout.attributes["first_section"], layout.attributes["first_pixel"]
    except KeyError:
        raise UserError(
            "volume: its metadata do not say where it lies; another version made it: remove it and "
            "run again to draw it anew"
        ) from None
    return VolumePlace(int(first), Rect(int(y), int(x), height, width))
