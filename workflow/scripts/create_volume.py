"""Adapter of the rule `create_volume`."""

from pathlib import Path

from teramind.job import job

with job(snakemake) as config:
    from teramind.files import write_json
    from teramind.volume import create_volume

    layout, plane = config.layout(), config.plane
    first, region = layout.windows.first, layout.region
    made = create_volume(
        Path(snakemake.params.volume),
        shape=(
            len(config.network.stains),
            layout.windows.generated,
            region.height,
            region.width,
        ),
        slab=layout.slab,
        pixel_size_um=plane.pixel_size_um,
        section_spacing_um=plane.section_spacing_um,
        stains=config.network.stains,
        origin_um=config.centre_um(first, region.y, region.x),
        attributes={
            "first_section": first,
            "first_pixel": [region.y, region.x],
            "settings": config.identity(),
        },
    )
    write_json(snakemake.output[0], {"shape": made.shape, "levels": made.levels})
