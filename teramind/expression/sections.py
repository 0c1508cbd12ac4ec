"""Which section of the volume a value in a table stands for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from teramind.errors import UserError, some

_WHOLE = re.compile(r"\s*([+-]?[0-9]{1,300})(?:\.0*)?\s*")
_DECIMAL = re.compile(r"\s*[+-]?[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]{1,3})?\s*")


def section_label(value: object) -> str:
    """Return the spelling of a section value that 3, 3.0, '3' and '3.0' share."""
    text = str(value)
    whole = _WHOLE.fullmatch(text)
    if whole:  # exact: a float would not tell 17 digits from each other
        return str(int(whole[1]))
    if not _DECIMAL.fullmatch(text):
        return text
    number = float(text)
    return str(int(number)) if number.is_integer() else str(number)


def match_sections(
    labels: Iterable[str],
    *,
    sections: int,
    section_values: Sequence[object] | None,
    where: str,
) -> dict[str, int]:
    """Map the labels found in a table to section numbers 0..sections - 1.

    `section_values` lists the table's values in z order; None means that the table holds section
    numbers. Raises UserError for values without a section and listed values that no row has.
    """
    values = range(sections) if section_values is None else section_values
    places = {section_label(value): place for place, value in enumerate(values)}
    labels = list(labels)
    if len(places) != sections:
        raise UserError(
            f"{where}: {len(places)} different section_values for {sections} sections:"
            " list one value per section, in z order"
        )
    unknown = [label for label in labels if label not in places]
    if unknown:
        listed = f"section_values are {_some(places)}"
        if section_values is None:
            listed = (
                f"the volume has section{'s' * (sections > 1)} {_some(places)}; list the"
                " column's values as section_values in z order, keep only the rows of these, or"
                " name no section column"
            )
        raise UserError(f"{where}: values without a section: {_some(unknown)}; {listed}")
    idle = [] if section_values is None else [label for label in places if label not in labels]
    if idle:
        raise UserError(
            f"{where}: no row has the section_values {_some(idle)}; values found: {_some(labels)}"
        )
    return {label: places[label] for label in labels}


def _some(labels: Iterable[str]) -> str:
    return some([*map(repr, labels)], 6)
