"""Adapter of the rule `report`."""

from pathlib import Path

from teramind.run.job import job


def optional(name):
    """An input that some configurations do not have."""
    found = snakemake.input.get(name)
    return Path(found) if found else None


with job(snakemake) as config:
    from teramind.report import write_report

    losses, split = optional("losses"), optional("split")
    attention = snakemake.input.get("attention")
    write_report(
        Path(snakemake.output[0]),
        title=config.title,
        volume=Path(snakemake.params.volume),
        raster=Path(snakemake.input.raster),
        receipts=[Path(path) for path in snakemake.input.receipts],
        provenance=Path(snakemake.input.provenance),
        panel_table=Path(snakemake.input.panel),
        summary=Path(snakemake.input.summary),
        benchmarks=Path(config.results) / "benchmarks",
        evaluation=optional("evaluation"),
        reference=optional("reference"),
        split=split.with_suffix(".png") if split and config.reference.split else None,
        training=losses.parent if losses else None,
        attention=Path(attention[0]).parent if attention else None,
    )
