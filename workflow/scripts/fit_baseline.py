"""Adapter of the rule `fit_baseline`."""

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.evaluate.jobs import fit_baseline
    from teramind.evaluate.sources import Sources

    fit_baseline(Sources.of_run(config), snakemake.output[0])
