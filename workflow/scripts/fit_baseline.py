"""Adapter of the rule `fit_baseline`."""

from teramind.job import job

with job(snakemake) as config:
    from teramind.evaluate import Sources, fit_baseline

    fit_baseline(
        Sources.of_run(
            config,
            volume=snakemake.params.volume,
            raster=snakemake.input.raster,
            images=snakemake.input.images,
            split=snakemake.input.split,
        ),
        snakemake.output[0],
    )
