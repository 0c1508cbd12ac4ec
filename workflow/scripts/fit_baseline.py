"""Adapter of the rule `fit_baseline`."""

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.evaluate import Sources, fit_baseline

    sources = Sources.of_run(config, snakemake.params.volume, snakemake.input)
    fit_baseline(sources, snakemake.output[0])
