"""Train the network of a config whose images and expression the workflow has prepared.

`torchrun --nproc-per-node 8 -m teramind train --configfile my.yaml` uses eight GPUs.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The config."""
    parser.add_argument("--configfile", type=Path, required=True, help="as for snakemake")


def run(arguments: argparse.Namespace) -> None:
    """Train, or go on training.

    Raises:
        UserError: when the config or its data are at fault, the results folder belongs to other
            settings, or training is asked to end.
    """
    from teramind.config import parse_config, refuse_other_results
    from teramind.config.reading import read_config
    from teramind.training.recipe import train_from_config

    config = parse_config(read_config(arguments.configfile))
    refuse_other_results(config)
    if not train_from_config(config):
        print("training: the time of train.minutes is over; the same command goes on")
