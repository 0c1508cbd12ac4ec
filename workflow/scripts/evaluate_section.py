"""Adapter of the rule `evaluate_section`."""

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.evaluate.jobs import evaluate_section
    from teramind.evaluate.sources import Sources

    evaluate_section(
        Sources.of_run(
            config,
            volume=snakemake.params.volume,
            raster=snakemake.input.raster,
            images=snakemake.input.images or None,
            split=snakemake.input.split or None,
        ),
        int(snakemake.wildcards.section),
        regression=snakemake.input.regression or None,
        cellpose=snakemake.input.cellpose or None,
        path=snakemake.output[0],
    )
