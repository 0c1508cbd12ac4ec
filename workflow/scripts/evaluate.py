"""Adapter of the rule `evaluate`."""

from pathlib import Path

from teramind.job import job

with job(snakemake) as config:
    from teramind.evaluate import Lattice, evaluate
    from teramind.split import Split

    held = Split.read(Path(snakemake.input.split)).test if config.reference else None
    layout = config.layout()
    evaluate(
        volume=Path(snakemake.params.volume),
        raster=Path(snakemake.input.raster),
        reference=Path(snakemake.input.images) if config.reference else None,
        holdout=held,
        lattice=Lattice(layout.patch, layout.slab, (layout.region.y, layout.region.x)),
        summary=Path(snakemake.output.summary),
        table=Path(snakemake.output.table),
        **snakemake.params.asked,
    )
