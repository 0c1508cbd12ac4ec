"""Configuration of the gene-gene attention maps."""

from __future__ import annotations

from pydantic import Field

from teramind.config.values import Count, LengthUnit, PathText, StrictModel


class Attention(StrictModel):
    """Which genes attend to which, where: maps per pathway, means per section and region."""

    pathways: PathText = Field(description="GMT file: name, description, 2 to 16 genes")
    regions: PathText | None = Field(
        None, description="label image (.tif) of the plane, or polygons (.geojson)"
    )
    units: LengthUnit = Field(
        "pixel", description="of the polygons' x and y, from the corner of pixel (0, 0)"
    )
    permutations: Count = Field(999, description="of region labels, for the table of pairs")
    threads: Count = Field(1, description="CPU threads of one slab job")
