"""Adapter of the rule `evaluate_section`."""

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.evaluate.jobs import evaluate_section
    from teramind.evaluate.sources import Sources

    evaluate_section(
        Sources.of_run(config),
        int(snakemake.wildcards.section),
        regression=snakemake.input.regression or None,
        cellpose=snakemake.input.cellpose or None,
        path=snakemake.output[0],
    )
