"""Print an evaluation's table as one line of JSON."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from teramind.errors import UserError, foreign


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The table."""
    parser.add_argument("evaluation", type=Path, help="the evaluation.csv of a results folder")


def run(arguments: argparse.Namespace) -> None:
    """Print the line.

    Raises:
        UserError: when the file is not an evaluation's table, or a measure is missing.
    """
    import pandas as pd

    from teramind.evaluate.headline import headline

    path = arguments.evaluation
    with foreign(f"{path}: not an evaluation's table"):
        table = pd.read_csv(path)
        found = headline(table)
    if "real" not in set(table["subject"]):
        raise UserError(f"{path}: compares with no real images; see `reference`")
    if missing := [name for name, value in found.items() if not math.isfinite(value)]:
        raise UserError(
            f"{path}: does not tell {', '.join(missing)}; needs sections of DAPI with nuclei in "
            "the real images, and borders of patches"
        )
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))
