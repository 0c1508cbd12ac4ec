"""Adapter of the rule `pyramid`."""

from pathlib import Path

from teramind.job import job

with job(snakemake) as config:
    from teramind.files import write_json
    from teramind.verify import require_section
    from teramind.volume import build_pyramid

    section, volume = int(snakemake.wildcards.section), Path(snakemake.params.volume)
    z = config.windows.z(section)
    require_section(volume, map(Path, snakemake.input), z=z)
    shards = build_pyramid(volume, z=z)
    write_json(snakemake.output[0], {"section": section, "shards": shards})
