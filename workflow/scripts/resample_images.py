"""Adapter of the rule `resample_images`."""

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.images.resample import resample_images

    resample_images(
        snakemake.input[0],
        snakemake.output[0],
        stains=config.network.stains,
        pixel_size_um=config.plane.pixel_size_um,
        white=config.reference.white,
    )
