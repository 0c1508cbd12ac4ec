"""Say everything that is wrong with a configuration, running nothing that it holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from teramind.attention.pathways import read_pathways
from teramind.config import (
    missing_files,
    parse_config,
    refuse_other_results,
    refuse_unwritable_results,
)
from teramind.config.reading import read_config
from teramind.errors import UserError
from teramind.fit import require_fit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The configuration."""
    parser.add_argument("config", type=Path, help="a YAML or JSON file")


def run(arguments: argparse.Namespace) -> None:
    """Check file, keys, results and the files that it names, as seen from the current folder.

    Raises:
        UserError: with one line per mistake.
    """
    config = parse_config(read_config(arguments.config))
    if absent := missing_files(config):
        raise UserError(*absent)
    refuse_other_results(config, Path(config.results, "provenance.json"))
    refuse_unwritable_results(config)
    require_fit(config)
    if config.attention:
        read_pathways(config.attention.pathways)
    jobs = config.layout().jobs
    print(f"{arguments.config}: nothing wrong found; {jobs:,} jobs that generate")
