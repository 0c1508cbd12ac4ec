"""Print what a molecule table or cells x genes file covers, to fill in a configuration."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from teramind.config.expression import PRESETS
from teramind.errors import UserError

if TYPE_CHECKING:
    from teramind.expression.cells import CellSettings
    from teramind.expression.molecules import MoleculeSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file and its columns."""
    parser.add_argument("file", type=Path, help=".csv, .csv.gz, .parquet or .h5ad")
    parser.add_argument("--pixel-size", type=_micrometres, required=True, help="um per pixel")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="columns of a known format")
    parser.add_argument("--gene", help="column of gene names, in a molecule table [gene] or in var")
    for column in ("x", "y"):
        parser.add_argument(f"--{column}", help=f"column of a molecule table [{column}]")
    parser.add_argument("--section", help="column of the section, in a molecule table or in obs")
    parser.add_argument("--layer", help="layer of an .h5ad with the counts [X]")
    parser.add_argument("--spatial-key", help="entry of its obsm with the centres [spatial]")
    parser.add_argument("--radius", type=_micrometres, help="um around a cell's centre [5]")


def run(arguments: argparse.Namespace) -> None:
    """Print it as JSON.

    Raises:
        UserError: when the file cannot be read as such a table, or options are not for its kind.
    """
    from teramind.expression.extent import table_extent

    found = table_extent(
        arguments.file, pixel_size_um=arguments.pixel_size, settings=_settings(arguments)
    )
    print(json.dumps(found, indent=2))


def _settings(given: argparse.Namespace) -> MoleculeSettings | CellSettings:
    """Return the settings that the command line asks for."""
    from teramind.expression.cells import CellSettings
    from teramind.expression.molecules import MoleculeColumns, MoleculeSettings

    cells = given.file.suffix == ".h5ad"
    _refuse(given, *(("preset", "x", "y") if cells else ("layer", "spatial_key", "radius")))
    if cells:
        chosen = {
            "gene": given.gene,
            "section": given.section,
            "layer": given.layer,
            "spatial_key": given.spatial_key,
            "radius_um": given.radius,
        }
        return CellSettings(**{key: value for key, value in chosen.items() if value is not None})
    named = {name: getattr(given, name) for name in ("gene", "x", "y", "section")}
    columns = {name: column for name, column in named.items() if column}
    return MoleculeSettings(columns=MoleculeColumns(**{**PRESETS.get(given.preset, {}), **columns}))


def _refuse(given: argparse.Namespace, *strange: str) -> None:
    """Raise UserError where an option was given that this kind of file has no use for."""
    used = [f"--{name.replace('_', '-')}" for name in strange if getattr(given, name) is not None]
    if used:
        kind = given.file.suffix or "such"
        raise UserError(f"{', '.join(used)}: not for {kind} files; leave out")


def _micrometres(text: str) -> float:
    """A positive, finite length, as an argument's type."""
    try:
        length = float(text)
    except ValueError:
        length = math.nan
    if not 0 < length < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}; must be a positive number of um")
    return length
