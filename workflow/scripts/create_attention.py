"""Adapter of the rule `create_attention`."""

from pathlib import Path

from teramind.job import job

with job(snakemake) as config:
    from teramind.attention.volumes import create_pathway_volumes
    from teramind.files import write_json

    made = create_pathway_volumes(
        config, Path(snakemake.params.folder), raster=Path(snakemake.input.raster)
    )
    write_json(snakemake.output[0], made)
