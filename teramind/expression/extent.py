"""What a data set covers, to fill in the config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from teramind.expression.cells import CellSettings, CellTable
from teramind.expression.molecules import MoleculeSettings, MoleculeTable


def table_extent(
    path: Path | str,
    *,
    pixel_size_um: float | None,
    settings: MoleculeSettings | CellSettings,
) -> dict[str, Any]:
    """Return the range in pixels, gene and molecule numbers, and section values of a table.

    `extent` is [y, x, height, width] in pixels; with `origin`, (y, x) in the table's units, it
    starts at pixel (0, 0), and a `plane` of that height and width holds it.
    `rows_per_section_value` counts molecules or cells per value of the section column, empty
    without one. Raises UserError as the readers do.
    """
    table: MoleculeTable | CellTable
    if isinstance(settings, CellSettings):
        table = CellTable(path, settings=settings, pixel_size_um=pixel_size_um)
    else:
        table = MoleculeTable(path, settings=settings, pixel_size_um=pixel_size_um)
    labels, extent = sorted(table.molecules_per_label.items()), table.extent
    size, (origin_y, origin_x) = table.pixel_size, settings.origin
    return {
        "extent": list(extent),
        "origin": [round(origin_y + extent.y * size, 4), round(origin_x + extent.x * size, 4)],
        "plane": {"height": extent.height, "width": extent.width},
        "genes": len(table.molecules),
        "molecules": sum(table.molecules.values()),
        "rows_per_section_value": {} if [name for name, _ in labels] == [""] else dict(labels),
    }
