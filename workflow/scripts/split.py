"""Adapter of the rule `split`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.images.resample import open_images, require_plane
    from teramind.report.split import write_split_picture

    split, images = config.split(), open_images(snakemake.input[0], config.network.stains)
    path, plane, tolerance = snakemake.input[0], config.plane, config.network.patch
    require_plane(images, plane.rect, sections=plane.sections, path=path, tolerance=tolerance)
    write_split_picture(split, images, Path(snakemake.output.picture))
    split.write(Path(snakemake.output.parts))
