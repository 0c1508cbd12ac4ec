"""Train the network of a config whose images and expression the workflow has prepared.

`torchrun --nproc-per-node 8 -m teramind train --configfile my.yaml` uses eight GPUs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from teramind.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The config."""
    parser.add_argument("--configfile", type=Path, required=True, help="as for snakemake")


def run(arguments: argparse.Namespace) -> None:
    """Train, or go on training.

    Raises:
        UserError: when the config or its data are at fault, or training is asked to end.
    """
    import yaml

    from teramind.config import parse_config
    from teramind.recipe import train_from_config

    try:
        values = yaml.safe_load(arguments.configfile.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{arguments.configfile}: not a readable config ({line})") from None
    if not isinstance(values, dict):
        raise UserError(f"{arguments.configfile}: not a config; it must be a mapping of sections")
    config = parse_config(values)
    if not train_from_config(config):
        print("training: the time of train.minutes is over; the same command goes on")
