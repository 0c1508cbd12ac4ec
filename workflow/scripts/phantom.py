"""Adapter of the rule `phantom`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.phantom import make_phantom, write_phantom

    phantom = make_phantom(
        height=config.phantom.height,
        width=config.phantom.width,
        sections=config.plane.sections,
        pixel_size_um=config.plane.pixel_size_um,
        section_spacing_um=config.plane.section_spacing_um,
        seed=config.phantom.seed,
    )
    write_phantom(Path(snakemake.output.molecules).parent, phantom)
