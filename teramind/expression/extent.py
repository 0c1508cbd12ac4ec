"""What a data set covers, to fill in the config: `python -m teramind.expression.extent FILE`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from teramind.config.expression import PRESETS
from teramind.errors import UserError
from teramind.expression.cells import CellSettings, CellTable
from teramind.expression.molecules import MoleculeColumns, MoleculeSettings, MoleculeTable


def table_extent(
    path: Path | str,
    *,
    pixel_size_um: float | None,
    settings: MoleculeSettings | CellSettings | None = None,
) -> dict[str, Any]:
    """Return the range in pixels, gene and molecule numbers, and section values of a table.

    `extent` is [y, x, height, width]; `rows_per_section_value` counts molecules or cells per value
    of the section column, empty without one. Raises UserError as the readers do.
    """
    table: MoleculeTable | CellTable
    if Path(path).suffix == ".h5ad":
        cells = settings if isinstance(settings, CellSettings) else CellSettings()
        table = CellTable(path, settings=cells, pixel_size_um=pixel_size_um)
    else:
        molecules = settings if isinstance(settings, MoleculeSettings) else MoleculeSettings()
        table = MoleculeTable(path, settings=molecules, pixel_size_um=pixel_size_um)
    rows = {label: number for label, number in sorted(table.molecules_per_label.items()) if label}
    return {
        "extent": list(table.extent),
        "genes": len(table.molecules),
        "molecules": sum(table.molecules.values()),
        "rows_per_section_value": rows,
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the extent of a file as JSON; return the exit status."""
    parser = argparse.ArgumentParser(description="What a molecule table or h5ad file covers.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--pixel-size", type=float, required=True, help="um per pixel")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="columns of a known format")
    for column in ("gene", "x", "y"):
        parser.add_argument(f"--{column}", help=f"column of a molecule table [{column}]")
    parser.add_argument("--section", help="column of the section, in a molecule table or in obs")
    given = parser.parse_args(arguments)
    try:
        found = table_extent(given.file, pixel_size_um=given.pixel_size, settings=_settings(given))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2))
    return 0


def _settings(given: argparse.Namespace) -> MoleculeSettings | CellSettings:
    """Return the settings that the command line asks for."""
    if given.file.suffix == ".h5ad":
        return CellSettings(section_key=given.section)
    named = {name: getattr(given, name) for name in ("gene", "x", "y", "section")}
    columns = {name: column for name, column in named.items() if column}
    return MoleculeSettings(columns=MoleculeColumns(**{**PRESETS.get(given.preset, {}), **columns}))


if __name__ == "__main__":
    sys.exit(main())
