"""Compare a volume's shards with their recorded digests."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The results folder, and whether to prepare the repair."""
    parser.add_argument("results", type=Path, help="a results folder")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="remove the records that do not hold, so that snakemake makes their shards again",
    )


def run(arguments: argparse.Namespace) -> None:
    """Print what was compared.

    Raises:
        UserError: with one line per shard that is missing or differs.
    """
    from teramind.volume.verify import verify

    threads = os.cpu_count() or 1
    print(verify(arguments.results, repair=arguments.repair, threads=threads))
