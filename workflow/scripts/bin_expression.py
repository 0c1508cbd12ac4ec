"""Adapter of the rule `bin_expression`."""

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.expression.bin_expression import bin_expression
    from teramind.expression.panel import read_synonyms
    from teramind.expression.settings import genes_read, panel_of, reader_settings
    from teramind.files import write_json

    names = config.expression.synonyms
    summary = bin_expression(
        source=config.source_path,
        raster_path=snakemake.output.raster,
        panel=panel_of(config, snakemake.input.panel),
        genes=genes_read(snakemake.input.get("checkpoint")),
        sections=config.plane.sections,
        extent=config.raster_extent,
        panel_table_path=snakemake.output.panel,
        settings=reader_settings(config.expression),
        pixel_size_um=config.plane.pixel_size_um,
        section_spacing_um=config.plane.section_spacing_um,
        minimum_overlap=config.expression.minimum_overlap,
        synonyms=read_synonyms(names) if names else None,
        outside=config.expression.outside,
        region=config.layout().region.cut(config.plane.rect),
        around=config.expression_read,
        bounds=config.plane.rect,
    )
    write_json(snakemake.output.summary, summary)
