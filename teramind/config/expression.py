"""Configuration of the expression: where the molecules come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from teramind.config.values import (
    Count,
    Finite,
    LengthUnit,
    Micrometres,
    Name,
    Number,
    Outside,
    PathText,
    SectionValue,
    StrictModel,
)

PRESETS: Mapping[str, Mapping[str, str]] = {
    "merscope": {"x": "global_x", "y": "global_y", "section": "global_z"},
    "xenium": {"gene": "feature_name", "x": "x_location", "y": "y_location"},
}
"""`merscope`: detected_transcripts.csv, its focal planes taken as sections. `xenium`: the
transcripts table; z_location is continuous, so all its molecules are of one section."""


class Expression(StrictModel):
    """Where the molecules come from."""

    source: PathText = Field(description="file or folder with the expression")
    panel: PathText | None = Field(None, description="gene list; by default the checkpoint's own")
    synonyms: PathText | None = Field(None, description="TSV: name in the data, name in the panel")
    minimum_overlap: Number = Field(0.5, ge=0, le=1, description="panel genes that must be found")
    outside: Outside = Field(
        "error", description="molecules outside the plane: refuse above 1 %, or ignore any number"
    )


class TableExpression(Expression):
    """A table whose rows have coordinates."""

    units: LengthUnit = Field("um", description="of x, y and origin")
    origin: tuple[Finite, Finite] = Field(
        (0.0, 0.0), description="y, x of the corner of pixel (0, 0)"
    )


class MoleculeExpression(TableExpression):
    """A molecule table, CSV, CSV.gz or Parquet."""

    kind: Literal["molecules"]
    preset: Literal["merscope", "xenium"] | None = Field(
        None, description="column names that are known; those named beside it come first"
    )
    gene: Name = Field("gene", description="column of gene names")
    x: Name = Field("x", description="column of x")
    y: Name = Field("y", description="column of y")
    section: Name | None = Field(None, description="column of the section; none: one section")
    section_values: tuple[SectionValue, ...] | None = Field(
        None, description="values of the section column in z order; none: numbers from 0"
    )

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, values: Any) -> Any:
        preset = values.get("preset") if isinstance(values, dict) else None
        known = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
        return {**known, **values} if known else values


class CellExpression(TableExpression):
    """Cells x genes in AnnData."""

    kind: Literal["cells"]
    gene: Name | None = Field(None, description="column of var with gene names; none: its index")
    spatial_key: Name = Field("spatial", description="entry of obsm with the centres, x first")
    section: Name | None = Field(None, description="column of obs that tells the section")
    section_values: tuple[SectionValue, ...] | None = Field(
        None, description="values of the section column in z order"
    )
    layer: Name | None = Field(None, description="layer with the counts; none: X")
    radius_um: Micrometres = Field(5.0, description="disc over which a cell's counts are spread")


class TileExpression(Expression):
    """The published sparse tiles, a folder or a zip archive that is read in place."""

    kind: Literal["tiles"]
    genes: Count = Field(500, description="genes per section on the tiles' last axis")
    gene_names: PathText | None = Field(
        None, description="gene list of the tiles' last axis; none: the panel is its beginning"
    )
