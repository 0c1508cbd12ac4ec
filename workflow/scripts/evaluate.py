"""Adapter of the rule `evaluate`."""

from teramind.job import job

with job(snakemake) as config:
    from teramind.evaluate.jobs import evaluate
    from teramind.evaluate.sources import Sources

    evaluate(
        Sources.of_run(config, snakemake.params.volume, snakemake.input),
        sections=snakemake.input.sections,
        regression=snakemake.input.regression or None,
        frechet=snakemake.params.frechet,
        summary=snakemake.output.summary,
        table=snakemake.output.table,
    )
