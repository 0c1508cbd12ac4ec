"""Adapter of the rule `attention_joint`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake):
    from teramind.attention.summary import summarise
    from teramind.files import read_json, write_json

    genes = len(read_json(snakemake.input.receipts[0])["genes"])
    files = map(Path, snakemake.output.get("pictures", []))
    pictures = dict(zip(snakemake.params.pathways, files, strict=True))
    summary = summarise(Path(snakemake.params.folder), pictures, genes)
    write_json(snakemake.output.summary, summary)
