"""Say everything that is wrong with a configuration, running nothing that it holds."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from teramind.config import (
    Config,
    missing_files,
    parse_config,
    refuse_other_results,
    refuse_unwritable_results,
)
from teramind.config.reading import read_config
from teramind.errors import UserError
from teramind.run.fit import require_fit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The configuration."""
    parser.add_argument("config", type=Path, help="a YAML or JSON file")


def run(arguments: argparse.Namespace) -> None:
    """Check file, keys, results and the files that it names, as seen from the current folder.

    Raises:
        UserError: with one line per mistake.
    """
    config = parse_config(read_config(arguments.config))
    if lines := list(dict.fromkeys(_mistakes(config))):  # two readers may say the same of a file
        raise UserError(*lines)
    jobs = config.layout().jobs
    print(f"{arguments.config}: nothing wrong found; {jobs:,} jobs that generate")


def _mistakes(config: Config) -> Iterator[str]:
    """What is wrong beyond the keys themselves, a line each."""
    yield from missing_files(config)
    for check in (_own_results, refuse_unwritable_results, require_fit, _pathways, _regions):
        try:
            check(config)
        except UserError as error:
            yield from str(error).splitlines()


def _own_results(config: Config) -> None:
    refuse_other_results(config)


def _pathways(config: Config) -> None:
    """Read the pathways, and find their genes on the panel if the files that say it are there."""
    from teramind.attention.pathways import read_pathways
    from teramind.attention.volumes import pathways_of
    from teramind.expression.settings import panel_of
    from teramind.network.spec import read_spec

    asked, network = config.attention, Path(config.network.checkpoint)
    if asked is None or not Path(asked.pathways).exists():
        return
    read_pathways(asked.pathways)
    spec = read_spec(network) if network.suffix == ".safetensors" and network.is_file() else None
    panel, synonyms = config.expression.panel, config.expression.synonyms
    if not panel and (spec is None or not spec.panel):
        return
    if all(Path(path).exists() for path in (panel, synonyms) if path):
        pathways_of(config, asked, panel_of(config, panel or network), spec)


def _regions(config: Config) -> None:
    from teramind.attention.volumes import regions_of

    asked = config.attention
    if asked and asked.regions and Path(asked.regions).exists():
        regions_of(config, asked)
