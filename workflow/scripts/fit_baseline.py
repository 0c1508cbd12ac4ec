"""Adapter of the rule `fit_baseline`."""

from teramind.job import job

with job(snakemake) as config:
    from teramind.evaluate.jobs import fit_baseline
    from teramind.evaluate.sources import Sources

    sources = Sources.of_run(config, snakemake.params.volume, snakemake.input)
    fit_baseline(sources, snakemake.output[0])
