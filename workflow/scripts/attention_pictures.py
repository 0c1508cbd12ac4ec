"""Adapter of the rule `attention_pictures`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.attention.pictures import draw_section
    from teramind.attention.volumes import volume_path
    from teramind.files import read_json

    summary = read_json(snakemake.input.summary)
    section = int(snakemake.wildcards.section)
    for name, picture in zip(snakemake.params.pathways, snakemake.output, strict=True):
        draw_section(
            volume_path(Path(snakemake.params.folder), name),
            config.windows.z(section),
            Path(picture),
            limits=summary["pathways"][name]["limits"],
            network_genes=summary["network_genes"],
            title=f"{name}, section {section}",
        )
