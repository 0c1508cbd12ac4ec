"""Adapter of the rule `provenance`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.run.provenance import write_provenance

    project = Path(snakemake.scriptdir).parents[1]
    write_provenance(config, Path(snakemake.output[0]), project=project)
