"""Adapter of the rule `evaluate_section`."""

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.evaluate import Sources, evaluate_section

    evaluate_section(
        Sources.of_run(config, snakemake.params.volume, snakemake.input),
        int(snakemake.wildcards.section),
        regression=snakemake.input.regression or None,
        cellpose=snakemake.input.cellpose or None,
        path=snakemake.output[0],
    )
