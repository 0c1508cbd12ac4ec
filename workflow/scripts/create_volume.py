"""Adapter of the rule `create_volume`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.files import write_json
    from teramind.volume import create_volume
    from teramind.volume.metadata import read_metadata
    from teramind.volume.planned import planned_volume

    volume, layout = Path(snakemake.params.volume), planned_volume(config)
    create_volume(volume, layout)
    metadata = read_metadata(volume, root=volume)
    record = {"shape": layout.shape, "levels": layout.levels, "metadata": metadata}
    write_json(snakemake.output[0], record)
