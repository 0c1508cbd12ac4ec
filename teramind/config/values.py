"""Types of values in the configuration, each refusing what YAML would let through."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from teramind.errors import invisible


def _four_numbers(value: Any) -> Any:
    if not isinstance(value, list | tuple) or [type(v) for v in value] != [int] * 4:
        raise ValueError("must be [y, x, height, width] in whole pixels")
    return value


def four_numbers_or_all(value: Any) -> Any:
    """[y, x, height, width] or the word all, for a `BeforeValidator`."""
    try:
        return value if value == "all" else _four_numbers(value)
    except ValueError as error:
        raise ValueError(f"{error}, or 'all'") from None


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


Box = tuple[int, int, int, int]
PlaneBox = Annotated[Box, BeforeValidator(_four_numbers)]
SectionValue = Annotated[str | int | float, BeforeValidator(_text_or_number)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, AfterValidator(_visible)]
Name = Annotated[str, Field(min_length=1), AfterValidator(_visible)]
PathText = Annotated[Name, AfterValidator(_without_wildcards)]
Whole = Annotated[int, Field(strict=True)]  # neither `yes` nor "3"
Count = Annotated[Whole, Field(ge=1)]
Edge = Annotated[Count, Field(le=1 << 24)]  # pixels: metres of tissue
Micrometres = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
