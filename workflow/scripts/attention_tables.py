"""Adapter of the rule `attention_tables`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.attention.means import open_sums, write_means
    from teramind.attention.pairs import write_pairs

    receipts, sums = ([Path(p) for p in snakemake.input[name]] for name in ("receipts", "sums"))
    slabs = open_sums(receipts, sums)
    means, *pairs = snakemake.output
    write_means(slabs, Path(means), regions=config.attention.regions is not None)
    for path in pairs:
        write_pairs(slabs, Path(path), permutations=snakemake.params.permutations)
