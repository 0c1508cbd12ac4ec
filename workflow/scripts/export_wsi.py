"""Adapter of the rule `export_wsi`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.volume.wsi import export_section

    section = int(snakemake.wildcards.section)
    export_section(
        volume=Path(snakemake.params.volume),
        z=config.windows.z(section),
        path=Path(snakemake.output[0]),
        name=f"{config.title}, section {section}",
    )
