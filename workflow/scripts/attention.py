"""Adapter of the rule `attention`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    import torch

    from teramind.attention.slab import attention_slab
    from teramind.files import write_json
    from teramind.geometry import Slab

    torch.set_num_threads(snakemake.threads)
    receipt = attention_slab(
        config,
        Slab.parse(snakemake.wildcards.slab),
        checkpoint=Path(snakemake.input.checkpoint),
        raster=Path(snakemake.input.raster),
        folder=Path(snakemake.params.folder),
        sums=Path(snakemake.output.sums),
    )
    write_json(snakemake.output.receipt, receipt)
