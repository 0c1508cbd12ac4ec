"""Adapter of the rule `create_volume`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.files import write_json
    from teramind.volume import create_volume
    from teramind.volume.metadata import read_metadata
    from teramind.volume.planned import volume_settings

    volume = Path(snakemake.params.volume)
    made = create_volume(volume, **volume_settings(config))
    metadata = read_metadata(volume, root=volume)
    record = {"shape": made.shape, "levels": made.levels, "metadata": metadata}
    write_json(snakemake.output[0], record)
