"""Adapter of the rules `generate_p...`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    import torch

    from teramind.engine.slab import generate_slab
    from teramind.geometry import Slab

    torch.set_num_threads(snakemake.threads)
    generate_slab(
        config,
        Slab.parse(snakemake.wildcards.slab),
        snakemake.params.phase,
        checkpoint=Path(snakemake.input.checkpoint),
        raster=Path(snakemake.input.raster),
        sources=[Path(state) for state in snakemake.input.get("states", [])],
        output=Path(snakemake.output[0]),
    )
