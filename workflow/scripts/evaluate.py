"""Adapter of the rule `evaluate`."""

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.evaluate.jobs import evaluate
    from teramind.evaluate.sources import Sources

    evaluate(
        Sources.of_run(config),
        sections=snakemake.input.sections,
        regression=snakemake.input.regression or None,
        frechet=snakemake.params.frechet,
        summary=snakemake.output.summary,
        table=snakemake.output.table,
    )
