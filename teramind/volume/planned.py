"""The volume that a configuration asks for."""

from __future__ import annotations

from teramind.config import Config
from teramind.volume.layout import VolumeLayout


def planned_volume(config: Config) -> VolumeLayout:
    """The layout of the volume that a run of `config` draws."""
    layout, plane, stains = config.layout(), config.plane, config.network.stains
    first, region = layout.windows.first, layout.region
    return VolumeLayout(
        shape=(len(stains), layout.windows.generated, region.height, region.width),
        slab=layout.slab,
        pixel_size_um=plane.pixel_size_um,
        section_spacing_um=plane.section_spacing_um,
        stains=stains,
        origin_um=config.centre_um(first, region.y, region.x),
        attributes={
            "first_section": first,
            "first_pixel": [region.y, region.x],
            "settings": config.identity(),
        },
    )
