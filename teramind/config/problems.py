"""What pydantic finds wrong with a configuration, in the words of its keys: one line each."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

_SECTION = "must be a section with keys of its own"
_NUMBER = "must be a number"
_WHOLE = "must be a whole number"

_WORDING = {
    "missing": "it has no default",
    "model_type": _SECTION,
    "model_attributes_type": _SECTION,
    "tuple_type": "must be a list",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "invalid_key": "must be text",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "too_short": "must be a list of at least {min_length}",
    "too_long": "must be a list of at most {max_length}",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le:.10g}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "literal_error": "must be {expected}",
    "union_tag_invalid": "must be one of {expected_tags}",
    "union_tag_not_found": "must be one of {kinds}",
    "value_error": "{error}",
}
"""pydantic's error type -> what the key must be."""


def problem(error: ErrorDetails, model: type[BaseModel], kinds: tuple[str, ...]) -> str:
    """One line for one validation error; several where a check of the whole found several.

    Args:
        error: of `ValidationError.errors()`.
        model: the configuration's model.
        kinds: tags of its discriminated section, which are not part of a key's path.
    """
    key = ".".join(_shown(part) for part in error["loc"] if part not in kinds)
    if error["type"] == "extra_forbidden":
        tag = next((f" with kind {part}" for part in error["loc"] if part in kinds), "")
        return f"{key}: no such key{tag}{_nearest(key, model)}"
    context = {"kinds": ", ".join(map(repr, kinds)), **error.get("ctx", {})}
    wording = _WORDING.get(error["type"])
    must = wording.format(**context) if wording else error["msg"]
    if not key:
        return must
    if error["type"].startswith("union_tag"):
        key += ".kind"
    if error["type"] in ("missing", "union_tag_not_found"):
        return f"{key}: missing; {must}"
    got = context.get("tag", error["input"])
    return f"{key}: got {got!r}; {must}"


def _shown(part: str | int) -> str:
    """A step of a key's path; quoted where it would break the line or be invisible."""
    text = str(part)
    return text if text and text.isprintable() else repr(text)


def _nearest(key: str, model: type[BaseModel]) -> str:
    """A hint at the known key that is spelt most alike; none for a key of another kind."""
    known = set(_known(model))
    near = [] if key in known else difflib.get_close_matches(key, known, 1, 0.8)
    return f"; did you mean {near[0]}?" if near else ""


def _known(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All keys of a model and of the sections in it."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for section in (field.annotation, *get_args(field.annotation)):
            if isinstance(section, type) and issubclass(section, BaseModel):
                yield from _known(section, f"{prefix}{name}.")
