"""Adapter of the rule `train`."""

from pathlib import Path

from teramind.job import job

with job(snakemake) as config:
    import torch

    from teramind.recipe import train_from_config

    torch.set_num_threads(snakemake.threads)
    train_from_config(
        config,
        raster=Path(snakemake.input.raster),
        images=Path(snakemake.input.images),
        checkpoint=Path(snakemake.output.checkpoint),
        loss_table=Path(snakemake.output.losses),
        loss_picture=Path(snakemake.output.picture),
    )
