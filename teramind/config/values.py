"""Types of values in the configuration, each refusing what YAML would let through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from teramind.errors import invisible


def _four_numbers(value: Any) -> Any:
    if not isinstance(value, list | tuple) or [type(v) for v in value] != [int] * 4:
        raise ValueError("must be [y, x, height, width] in whole pixels")
    return value


def region(value: Any) -> Any:
    """The word all, a box in pixels or tiles, or a box in um, for a `BeforeValidator`.

    A box of tiles, given as [y, x, rows, columns] with y and x in pixels like the published
    `--hst --wst --hnm --wnm`, becomes a box in pixels.
    """
    units = next(iter(value)) if isinstance(value, dict) and len(value) == 1 else None
    box = value[units] if units in ("um", "tiles") else value
    kinds = (int, float) if units == "um" else (int,)
    if value == "all":
        return value
    if not isinstance(box, list | tuple) or len(box) != 4 or {*map(type, box)} - {*kinds}:
        raise ValueError(REGION)
    if units == "um" and not all(abs(edge) <= FARTHEST_UM for edge in box):
        raise ValueError(f"must lie within {FARTHEST_UM:,} um of pixel (0, 0)")
    if units == "tiles":
        return box[0], box[1], box[2] * TILE, box[3] * TILE
    return value


def no_truth(value: Any) -> Any:
    """Not `yes`, which is 1 to Python; text such as 1e-3 is a number that YAML does not know."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _text_or_number(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError("must be text or a number")
    return _visible(value) if isinstance(value, str) else value


def _visible(text: str) -> str:
    if invisible(text):
        raise ValueError("must be one line of text without control characters")
    return text


def _without_wildcards(path: str) -> str:
    if set("{}") & set(path):
        raise ValueError("must hold neither { nor }, which Snakemake takes for wildcards")
    return path


def _without_end_slash(path: str) -> str:
    return path.rstrip("/") or path[:1]


TILE = 256
"""Edge of a published tile in pixels."""

FARTHEST_UM = 10**9
"""Edge of a region at most: pixels are counted in whole numbers."""

REGION = (
    "must be [y, x, height, width] in whole pixels, {um: [y, x, height, width]}, "
    "{tiles: [y, x, rows, columns]}, or 'all'"
)
Box = tuple[int, int, int, int]
PlaneBox = Annotated[Box, BeforeValidator(_four_numbers)]
SectionValue = Annotated[str | int | float, BeforeValidator(_text_or_number)]
Number = Annotated[float, BeforeValidator(no_truth)]
Finite = Annotated[Number, Field(allow_inf_nan=False)]
Text = Annotated[str, AfterValidator(_visible)]
Name = Annotated[str, Field(min_length=1), AfterValidator(_visible)]
PathText = Annotated[Name, AfterValidator(_without_wildcards), AfterValidator(_without_end_slash)]
BoxUm = dict[Literal["um"], tuple[Finite, Finite, Finite, Finite]]
Region = Annotated[Literal["all"] | Box | BoxUm, BeforeValidator(region)]
Whole = Annotated[int, Field(strict=True)]  # neither `yes` nor "3"
Count = Annotated[Whole, Field(ge=1)]
Edge = Annotated[Count, Field(le=1 << 24)]  # pixels: metres of tissue
Micrometres = Annotated[Number, Field(ge=1e-3, allow_inf_nan=False)]

LengthUnit = Literal["um", "pixel"]
StoredType = Literal["float32", "float16"]
Bounds = Literal["volume", "region"]
NoiseName = Literal["philox", "published"]
Outside = Literal["error", "skip"]


class StrictModel(BaseModel):
    """Base of all parts of the configuration: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings -> one level, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
