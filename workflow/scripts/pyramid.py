"""Adapter of the rule `pyramid`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.files import write_json
    from teramind.volume import build_pyramid
    from teramind.volume.verify import require_section

    section, volume = int(snakemake.wildcards.section), Path(snakemake.params.volume)
    z = config.windows.z(section)
    require_section(volume, map(Path, snakemake.input), z=z)
    shards = build_pyramid(volume, z=z)
    write_json(snakemake.output[0], {"section": section, "shards": shards})
