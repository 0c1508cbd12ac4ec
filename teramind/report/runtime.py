"""Where the time went: Snakemake's benchmark tables added up by rule."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RuleTime:
    """All jobs of one rule: wall time in seconds, added up, and the largest memory in MiB."""

    rule: str
    jobs: int
    seconds: float
    peak_mib: float | None


def rule_times(benchmarks: Path) -> list[RuleTime]:
    """Add up `benchmarks`/<rule>/<job>.tsv by rule, the longest first.

    Values that were not measured (NA, -) count as nothing.
    """
    jobs: dict[str, list[Path]] = {}
    for path in sorted(benchmarks.rglob("*.tsv")):
        rule = path.relative_to(benchmarks).with_suffix("").parts[0]
        jobs.setdefault(rule, []).append(path)
    times = [_rule_time(rule, paths) for rule, paths in jobs.items()]
    return sorted(times, key=lambda time: (-time.seconds, time.rule))


def _rule_time(rule: str, paths: list[Path]) -> RuleTime:
    rows = [row for path in paths for row in _rows(path)]
    memory = [value for row in rows if (value := _number(row, "max_rss")) is not None]
    seconds = sum(_number(row, "s") or 0.0 for row in rows)
    return RuleTime(rule, len(paths), seconds, max(memory, default=None))


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t")


def _number(row: dict[str, str], column: str) -> float | None:
    value = row.get(column)
    return None if value in (None, "", "-", "NA") else float(str(value))
