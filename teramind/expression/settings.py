"""From the config's `expression` section to what the readers take."""

from __future__ import annotations

from pathlib import Path

from teramind.config import CellExpression, Config, MoleculeExpression, TileExpression
from teramind.errors import UserError
from teramind.expression.bin_expression import Settings
from teramind.expression.cells import CellSettings
from teramind.expression.molecules import MoleculeColumns, MoleculeSettings
from teramind.expression.panel import read_panel
from teramind.expression.tiles import TileSettings
from teramind.network.spec import read_spec


def reader_settings(
    expression: MoleculeExpression | CellExpression | TileExpression,
) -> Settings:
    """How the reader of this kind reads the source."""
    if isinstance(expression, TileExpression):
        names = tuple(read_panel(expression.gene_names)) if expression.gene_names else ()
        return TileSettings(genes=expression.genes, names=names)
    if isinstance(expression, CellExpression):
        return CellSettings(
            gene=expression.gene,
            spatial_key=expression.spatial_key,
            section=expression.section,
            section_values=expression.section_values,
            layer=expression.layer,
            radius_um=expression.radius_um,
            units=expression.units,
            origin=expression.origin,
        )
    columns = MoleculeColumns(
        gene=expression.gene,
        x=expression.x,
        y=expression.y,
        section=expression.section,
    )
    return MoleculeSettings(
        columns=columns,
        section_values=expression.section_values,
        units=expression.units,
        origin=expression.origin,
    )


def panel_of(config: Config, source: str | Path) -> tuple[str, ...]:
    """Genes to bin: the config's list, else those the checkpoint carries.

    Raises:
        UserError: when there is neither.
    """
    if config.expression.panel:
        return tuple(read_panel(source))
    spec = read_spec(source) if Path(source).suffix == ".safetensors" else None
    if spec is None or not spec.panel:
        raise UserError(
            f"checkpoint {source}: carries no gene panel; name a gene list in expression.panel"
        )
    return spec.panel


def genes_read(checkpoint: str | None) -> int | None:
    """How many genes of a longer panel the network reads, its first; None without a network."""
    spec = read_spec(checkpoint) if checkpoint else None
    return spec.genes if spec else None
