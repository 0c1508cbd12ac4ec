"""The volume that a configuration asks for."""

from __future__ import annotations

from typing import Any

from teramind.config import Config


def volume_settings(config: Config) -> dict[str, Any]:
    """What `create_volume` and `VolumeLayout` take."""
    layout, plane = config.layout(), config.plane
    first, region = layout.windows.first, layout.region
    shape = (
        *(len(config.network.stains), layout.windows.generated),
        *(region.height, region.width),
    )
    return {
        "shape": shape,
        "slab": layout.slab,
        "pixel_size_um": plane.pixel_size_um,
        "section_spacing_um": plane.section_spacing_um,
        "stains": config.network.stains,
        "origin_um": config.centre_um(first, region.y, region.x),
        "attributes": {
            "first_section": first,
            "first_pixel": [region.y, region.x],
            "settings": config.identity(),
        },
    }
