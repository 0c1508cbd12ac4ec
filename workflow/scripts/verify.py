"""Adapter of the rule `verify`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.volume.verify import verify

    print(verify(Path(config.results), repair=True, threads=snakemake.threads))
