"""Print how alike the attention of two runs is, as one line of JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two tables."""
    parser.add_argument("first", type=Path, help="attention/genes.h5ad of a results folder")
    parser.add_argument("second", type=Path, help="that of another brain or network")
    parser.add_argument("--layer", help="a section or region that both have, as section_000")


def run(arguments: argparse.Namespace) -> None:
    """Print the line.

    Raises:
        UserError: when the files cannot be compared.
    """
    from teramind.attention.agreement import agreement

    found = agreement(arguments.first, arguments.second, layer=arguments.layer)
    print(json.dumps({k: round(v, 4) for k, v in found._asdict().items()}))
