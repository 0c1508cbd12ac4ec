"""Adapter of the rule `download`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.download import fetch
    from teramind.files import write_json

    name, wanted = snakemake.wildcards.archive, config.download
    record = fetch(name, Path(wanted.folder), url=wanted.url, sha256=wanted.sha256.get(name))
    write_json(snakemake.output[0], record)
