"""Adapter of the rules `generate_p...`."""

from pathlib import Path

from teramind.job import job

with job(snakemake) as config:
    import torch

    from teramind.geometry import Slab
    from teramind.slab import generate_slab

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
