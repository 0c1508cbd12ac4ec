"""Adapter of the rule `create_attention`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.attention.volumes import create_pathway_volumes
    from teramind.files import write_json

    checkpoint = snakemake.input.get("checkpoint")
    made = create_pathway_volumes(
        config,
        Path(snakemake.params.folder),
        raster=Path(snakemake.input.raster),
        checkpoint=Path(checkpoint) if checkpoint else None,
    )
    write_json(snakemake.output[0], made)
