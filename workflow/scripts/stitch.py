"""Adapter of the rule `stitch`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.engine.stitch import stitch_slab
    from teramind.files import write_json
    from teramind.geometry import Slab

    right, below = (snakemake.input.get(side) for side in ("right", "below"))
    receipt = stitch_slab(
        config,
        Slab.parse(snakemake.wildcards.slab),
        checkpoint=Path(snakemake.input.checkpoint),
        raster=Path(snakemake.input.raster),
        state=Path(snakemake.input.state),
        right=Path(right) if right else None,
        below=Path(below) if below else None,
        volume=Path(snakemake.params.volume),
    )
    write_json(snakemake.output[0], receipt)
