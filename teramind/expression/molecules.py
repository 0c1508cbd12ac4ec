"""Tables with one row per molecule, looked through once and then read in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from teramind.config.values import LengthUnit
from teramind.errors import UserError
from teramind.expression.batches import MoleculeColumns, first_row, read_batches
from teramind.expression.sections import match_sections
from teramind.expression.source import Molecules, spanned, to_pixels
from teramind.geometry import Rect

__all__ = ["MoleculeColumns", "MoleculeSettings", "MoleculeTable"]

_MOST_GENES = 1_000_000
_MOST_SECTIONS = 10_000


@dataclass(frozen=True)
class MoleculeSettings:
    """How to read a molecule table."""

    columns: MoleculeColumns = field(default_factory=MoleculeColumns)
    section_values: Sequence[object] | None = None
    """Values of the section column in z order; None: it holds section numbers from 0."""
    units: LengthUnit = "um"
    """Units of x and y."""
    origin: tuple[float, float] = (0.0, 0.0)
    """Coordinates (y, x) of the top left corner of pixel (0, 0), in these units."""


class MoleculeTable:
    """A molecule table whose genes, sections and coordinates have been looked through once."""

    def __init__(
        self,
        path: Path | str,
        *,
        settings: MoleculeSettings,
        pixel_size_um: float | None,
    ) -> None:
        """Look through the table.

        Raises UserError for a missing, unreadable or empty file, missing columns, and coordinates
        that are no finite numbers.
        """
        self.path, self.settings = Path(path), settings
        self.pixel_size = _pixel_size(settings.units, pixel_size_um, self.path)
        self.molecules: Counter[str] = Counter()
        self.molecules_per_label: Counter[str] = Counter()
        low, high = np.full(2, np.inf), np.full(2, -np.inf)
        rows, bad, first_bad = 0, 0, 0
        for batch in read_batches(self.path, settings.columns):
            places = np.stack([batch.y, batch.x])
            finite = np.isfinite(places).all(axis=0)
            if not bad and not finite.all():
                first_bad = rows + int(np.argmin(finite)) + first_row(self.path)
            bad += int((~finite).sum())
            rows += len(batch.y)
            low = np.minimum(low, places.min(axis=1, where=finite, initial=np.inf))
            high = np.maximum(high, places.max(axis=1, where=finite, initial=-np.inf))
            _tally(self.molecules, batch.gene, batch.genes)
            _tally(self.molecules_per_label, batch.section, batch.sections)
            self._require_few_names()
        self._require_rows(rows, bad, first_bad)
        self.extent: Rect = spanned(
            (low[0], low[1]),
            (high[0], high[1]),
            origin=settings.origin,
            pixel_size=self.pixel_size,
        )
        self._sections: dict[str, int] = {}

    def match(self, sections: int) -> None:
        """Map the section column to 0..sections - 1; UserError for values that do not fit."""
        if self.settings.columns.section is None:
            self._sections = {"": 0}
        else:
            self._sections = match_sections(
                self.molecules_per_label,
                sections=sections,
                section_values=self.settings.section_values,
                where=f"{self.path}, column {self.settings.columns.section}",
            )

    def read(self, index: Mapping[str, int]) -> Iterator[Molecules]:
        """Yield the molecules of the genes in `index`, after `match`."""
        origin_y, origin_x = self.settings.origin
        for batch in read_batches(self.path, self.settings.columns):
            gene = _recode(batch.gene, [index.get(name, -1) for name in batch.genes])
            section = _recode(batch.section, [self._sections[name] for name in batch.sections])
            y = to_pixels(batch.y, origin=origin_y, pixel_size=self.pixel_size)
            x = to_pixels(batch.x, origin=origin_x, pixel_size=self.pixel_size)
            ones = np.ones(len(gene), np.int64)
            yield Molecules(section, y, x, gene, ones).take(gene >= 0)

    def _require_rows(self, rows: int, bad: int, first_bad: int) -> None:
        columns = self.settings.columns
        if rows == 0:
            raise UserError(f"{self.path}: no rows: a molecule table needs at least one")
        if bad:
            raise UserError(
                f"{self.path}, columns {columns.x} and {columns.y}: {bad} of {rows} rows hold no"
                f" finite coordinates, the first is row {first_bad}: remove or mend them"
            )

    def _require_few_names(self) -> None:
        """Refuse a column whose values are too many to be what it is said to hold."""
        columns = self.settings.columns
        labels = self.molecules_per_label
        for column, found, most, right in (
            (columns.gene, self.molecules, _MOST_GENES, "names genes"),
            (columns.section, labels, _MOST_SECTIONS, "numbers sections, or none"),
        ):
            if len(found) > most:
                raise UserError(
                    f"{self.path}, column {column}: more than {most} different values:"
                    f" name a column that {right}"
                )


def _pixel_size(units: str, pixel_size_um: float | None, path: Path) -> float:
    """Return the edge of a pixel in the table's units."""
    if units == "pixel":
        return 1.0
    if pixel_size_um is None or not pixel_size_um > 0:
        raise UserError(f"{path}: coordinates are in um: pixel_size_um must be a number above 0")
    return pixel_size_um


def _recode(codes: NDArray[np.int64], values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(values, np.int64)[codes]


def _tally(counter: Counter[str], codes: NDArray[np.int64], names: list[str]) -> None:
    for name, number in zip(names, np.bincount(codes, minlength=len(names)), strict=True):
        counter[name] += int(number)
