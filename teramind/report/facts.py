"""What the run's own records say: the panel, the evaluation, the provenance."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

_LISTED = 12


@dataclass(frozen=True)
class PanelReport:
    """How many panel genes were matched and how, which are missing, and what was left over."""

    matched: dict[str, int]
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def found(self) -> int:
        """Panel genes that the data has."""
        return sum(self.matched.values())

    @property
    def size(self) -> int:
        """Panel genes in all."""
        return self.found + len(self.missing)


@dataclass(frozen=True)
class Verdict:
    """Mean correlations of one stain over the sections where both are known."""

    stain: str
    area: str
    generated: float
    density: float
    better: int
    sections: int


def read_panel_report(path: Path) -> PanelReport:
    """Read the panel table that `bin_expression` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    matched: dict[str, int] = {}
    for status in (row["status"] for row in rows):
        if status not in ("missing", "extra"):
            matched[status] = matched.get(status, 0) + 1
    return PanelReport(
        matched=matched,
        missing=tuple(row["panel_gene"] for row in rows if row["status"] == "missing"),
        extra=tuple(row["source_gene"] for row in rows if row["status"] == "extra"),
    )


def verdicts(evaluation: Mapping[str, Any]) -> list[Verdict]:
    """Average an evaluation over its sections, by stain: on the holdout, else on the whole."""
    area = "holdout" if evaluation["holdout"] else "whole"
    stains = dict.fromkeys(row["stain"] for row in evaluation["sections"])
    found = (_verdict(stain, area, evaluation["sections"]) for stain in stains)
    return [verdict for verdict in found if verdict]


def _verdict(stain: str, area: str, rows: Sequence[Mapping[str, Any]]) -> Verdict | None:
    pairs = [
        (row[area]["generated"], row[area]["density"])
        for row in rows
        if row["stain"] == stain and None not in (row[area]["generated"], row[area]["density"])
    ]
    if not pairs:
        return None
    generated, density = zip(*pairs, strict=True)
    better = sum(made > baseline for made, baseline in pairs)
    return Verdict(stain, area, fmean(generated), fmean(density), better, len(pairs))


def fact_tables(provenance: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return (heading, rows of name and value): one table per object, loose values first.

    `identity` is left out, for it repeats the config.
    """
    provenance = {key: value for key, value in provenance.items() if key != "identity"}
    loose = {key: value for key, value in provenance.items() if not isinstance(value, Mapping)}
    nested = {key: value for key, value in provenance.items() if isinstance(value, Mapping)}
    tables = [("run", list(_flat(loose))), *((key, list(_flat(nested[key]))) for key in nested)]
    return [(heading.replace("_", " "), rows) for heading, rows in tables if rows]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            value = dict(enumerate(value, start=1))
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _text(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, list):
        shown = ", ".join(map(_text, value[:_LISTED]))
        return shown + (f", … ({len(value)} in all)" if len(value) > _LISTED else "")
    return str(value).lower() if isinstance(value, bool) else str(value)
