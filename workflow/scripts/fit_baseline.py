"""Adapter of the rule `fit_baseline`."""

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.evaluate.jobs import fit_baseline
    from teramind.evaluate.sources import Sources

    sources = Sources.of_run(
        config,
        volume=snakemake.params.volume,
        raster=snakemake.input.raster,
        images=snakemake.input.images,
        split=snakemake.input.split,
    )
    fit_baseline(sources, snakemake.output[0])
