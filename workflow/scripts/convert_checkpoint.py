"""Adapter of the rule `convert_checkpoint`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.expression.panel import read_panel
    from teramind.network.convert import convert_checkpoint

    panel = snakemake.input.get("panel")
    convert_checkpoint(
        config.checkpoint_path,
        Path(snakemake.output[0]),
        panel=read_panel(panel) if panel else (),
        patch=config.network.patch,
        sections=config.network.sections,
        stains=config.network.stains,
        mouse=config.mouse,
    )
