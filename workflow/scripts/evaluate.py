"""Adapter of the rule `evaluate`."""

from pathlib import Path

from teramind.job import job

with job(snakemake) as config:
    from teramind.evaluate import evaluate
    from teramind.geometry import Rect

    holdout = config.reference.holdout
    evaluate(
        volume=Path(snakemake.params.volume),
        raster=Path(snakemake.input.raster),
        reference=Path(snakemake.input.images),
        holdout=Rect(*holdout) if holdout else None,
        path=Path(snakemake.output[0]),
    )
