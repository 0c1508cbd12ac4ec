"""Print an evaluation's table as one line of JSON."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from teramind.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The table."""
    parser.add_argument("evaluation", type=Path, help="the evaluation.csv of a results folder")


def run(arguments: argparse.Namespace) -> None:
    """Print the line.

    Raises:
        UserError: when the file is not an evaluation's table.
    """
    import pandas as pd

    from teramind.evaluate.headline import headline

    try:
        found = headline(pd.read_csv(arguments.evaluation))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{arguments.evaluation}: not an evaluation's table: {error}") from None
    if not all(map(math.isfinite, found.values())):
        raise UserError(f"{arguments.evaluation}: compares with no real images; see `reference`")
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))
