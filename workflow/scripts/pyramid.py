"""Adapter of the rule `pyramid`."""

from pathlib import Path

from teramind.job import job

with job(snakemake) as config:
    from teramind.files import write_json
    from teramind.volume import build_pyramid

    section = int(snakemake.wildcards.section)
    shards = build_pyramid(Path(snakemake.params.volume), z=section - config.windows.first)
    write_json(snakemake.output[0], {"section": section, "shards": shards})
