"""Adapter of the rule `create_volume`."""

from pathlib import Path

from teramind.job import job

with job(snakemake) as config:
    from teramind.files import write_json
    from teramind.volume import create_volume
    from teramind.volume.planned import volume_settings

    made = create_volume(Path(snakemake.params.volume), **volume_settings(config))
    write_json(snakemake.output[0], {"shape": made.shape, "levels": made.levels})
