"""The generated volume on disk: OME-NGFF 0.5, axes c, z, y, x, one shard per stain of a slab."""

from teramind.volume.layout import VolumeLayout, create_volume, stain_colour, volume_layout
from teramind.volume.shards import (
    build_pyramid,
    open_level,
    read_volume,
    verify_shards,
    write_slab,
)

__all__ = [
    "VolumeLayout",
    "build_pyramid",
    "create_volume",
    "open_level",
    "read_volume",
    "stain_colour",
    "verify_shards",
    "volume_layout",
    "write_slab",
]
