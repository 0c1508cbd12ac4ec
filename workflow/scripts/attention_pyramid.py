"""Adapter of the rule `attention_pyramid`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.attention.volumes import volume_path
    from teramind.files import write_json
    from teramind.volume import build_pyramid

    folder, section = Path(snakemake.params.folder), int(snakemake.wildcards.section)
    z = config.windows.z(section)
    shards = {
        name: build_pyramid(volume_path(folder, name), z=z) for name in snakemake.params.pathways
    }
    write_json(snakemake.output[0], {"section": section, "shards": shards})
