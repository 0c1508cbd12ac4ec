"""Adapter of the rule `attention_pictures`."""

import json
from pathlib import Path

from teramind.job import job

with job(snakemake) as config:
    from teramind.attention.pictures import draw_section
    from teramind.attention.volumes import volume_path

    summary = json.loads(Path(snakemake.input.summary).read_text(encoding="utf-8"))
    section = int(snakemake.wildcards.section)
    for name, picture in zip(snakemake.params.pathways, snakemake.output, strict=True):
        draw_section(
            volume_path(Path(snakemake.params.folder), name),
            section - config.windows.first,
            Path(picture),
            limits=summary["pathways"][name]["limits"],
            network_genes=summary["network_genes"],
            title=f"{name}, section {section}",
        )
