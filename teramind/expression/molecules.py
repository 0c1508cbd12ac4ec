"""Tables with one row per molecule: CSV, CSV.gz and Parquet, read in bounded memory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from teramind.errors import UserError
from teramind.expression.sections import match_sections, section_label
from teramind.expression.source import Molecules, spanned, to_pixels
from teramind.geometry import Rect

_BATCH_ROWS = 1 << 19
_BATCH_BYTES = 16 << 20
_MOST_SECTIONS = 10_000


@dataclass(frozen=True)
class MoleculeColumns:
    """Names of a table's columns; no section column means that all rows are of section 0."""

    gene: str = "gene"
    x: str = "x"
    y: str = "y"
    section: str | None = None
    units: Literal["um", "pixel"] = "um"
    """Units of x and y."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns to read."""
        return (self.gene, self.x, self.y, *((self.section,) if self.section else ()))


PRESETS: Mapping[str, MoleculeColumns] = {
    "merscope": MoleculeColumns(x="global_x", y="global_y", section="global_z"),
    "xenium": MoleculeColumns(gene="feature_name", x="x_location", y="y_location"),
}
"""`merscope`: detected_transcripts.csv, its focal planes taken as sections. `xenium`: the
transcripts table; z_location is continuous, so all its molecules are of one section."""


@dataclass(frozen=True)
class MoleculeSettings:
    """How to read a molecule table."""

    columns: MoleculeColumns = field(default_factory=MoleculeColumns)
    section_values: Sequence[object] | None = None
    """Values of the section column in z order; None: it holds section numbers from 0."""
    origin: tuple[float, float] = (0.0, 0.0)
    """Coordinates (y, x) of the top left corner of pixel (0, 0), in the table's units."""


class _Batch(NamedTuple):
    """Rows of a table: coordinates, and gene and section as codes of a list of names."""

    y: NDArray[np.float64]
    x: NDArray[np.float64]
    gene: NDArray[np.int64]
    genes: list[str]
    section: NDArray[np.int64]
    sections: list[str]


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
        self._pixel_size = _pixel_size(settings.columns.units, pixel_size_um, self.path)
        self.molecules: Counter[str] = Counter()
        self.molecules_per_label: Counter[str] = Counter()
        low, high = np.full(2, np.inf), np.full(2, -np.inf)
        rows, bad, first_bad = 0, 0, 0
        for batch in _batches(self.path, settings.columns):
            places = np.stack([batch.y, batch.x])
            finite = np.isfinite(places).all(axis=0)
            if not bad and not finite.all():
                first_bad = rows + int(np.argmin(finite)) + 1
            bad += int((~finite).sum())
            rows += len(batch.y)
            low = np.minimum(low, places.min(axis=1, where=finite, initial=np.inf))
            high = np.maximum(high, places.max(axis=1, where=finite, initial=-np.inf))
            _tally(self.molecules, batch.gene, batch.genes)
            _tally(self.molecules_per_label, batch.section, batch.sections)
            self._require_few_labels()
        self._require_rows(rows, bad, first_bad)
        self.extent: Rect = spanned(
            (low[0], low[1]),
            (high[0], high[1]),
            origin=settings.origin,
            pixel_size=self._pixel_size,
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
        for batch in _batches(self.path, self.settings.columns):
            gene = _recode(batch.gene, [index.get(name, -1) for name in batch.genes])
            section = _recode(batch.section, [self._sections[name] for name in batch.sections])
            y = to_pixels(batch.y, origin=origin_y, pixel_size=self._pixel_size)
            x = to_pixels(batch.x, origin=origin_x, pixel_size=self._pixel_size)
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

    def _require_few_labels(self) -> None:
        if len(self.molecules_per_label) > _MOST_SECTIONS:
            raise UserError(
                f"{self.path}, column {self.settings.columns.section}: more than {_MOST_SECTIONS}"
                " different values: name a column that numbers sections, or none"
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


def _batches(path: Path, columns: MoleculeColumns) -> Iterator[_Batch]:
    """Yield a table's rows in file order; raises UserError where it cannot be read."""
    if not path.is_file():
        raise UserError(f"{path}: no such file: give a molecule table (.csv, .csv.gz or .parquet)")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty: give a molecule table with rows")
    read = _parquet_batches if path.suffix == ".parquet" else _csv_batches
    try:
        for batch in read(path, columns):
            yield _decode(batch, columns, path)
    except (pa.ArrowException, OSError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as a molecule table: {reason}") from error


def _parquet_batches(path: Path, columns: MoleculeColumns) -> Iterator[pa.RecordBatch]:
    with pa.parquet.ParquetFile(path) as file:
        _require_columns(path, columns, file.schema_arrow.names)
        yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns.names))


def _csv_batches(path: Path, columns: MoleculeColumns) -> Iterator[pa.RecordBatch]:
    if not path.name.endswith((".csv", ".csv.gz")):
        raise UserError(
            f"{path}: not a molecule table: the name must end in .csv, .csv.gz or .parquet"
        )
    with pa.csv.open_csv(path) as reader:
        header = reader.schema.names
    _require_columns(path, columns, header)
    types = dict.fromkeys(columns.names, pa.string())
    types |= {columns.x: pa.float64(), columns.y: pa.float64()}
    convert = pa.csv.ConvertOptions(include_columns=list(columns.names), column_types=types)
    options = pa.csv.ReadOptions(block_size=_BATCH_BYTES, use_threads=False)
    try:
        with pa.csv.open_csv(path, read_options=options, convert_options=convert) as reader:
            yield from reader
    except pa.ArrowInvalid as error:
        named = re.sub(r"column #(\d+)", lambda found: header[int(found[1])], str(error))
        raise pa.ArrowInvalid(named) from error


def _require_columns(path: Path, columns: MoleculeColumns, present: Sequence[str]) -> None:
    absent = [name for name in columns.names if name not in present]
    if absent:
        raise UserError(
            f"{path}: columns missing: {', '.join(absent)}; present: {', '.join(present)}"
        )


def _decode(batch: pa.RecordBatch, columns: MoleculeColumns, path: Path) -> _Batch:
    gene, genes = _codes(batch.column(columns.gene))
    if columns.section:
        section, values = _codes(batch.column(columns.section))
    else:
        section, values = np.zeros(len(batch), np.int64), [""]
    y, x = (_numbers(batch.column(name), name, path) for name in (columns.y, columns.x))
    labels = [section_label(value) if columns.section else "" for value in values]
    return _Batch(y, x, gene, [_text(name) for name in genes], section, labels)


def _codes(column: pa.Array) -> tuple[NDArray[np.int64], list[object]]:
    """Return a column as codes of a list of its different values, null among them."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    encoded = column.dictionary_encode(null_encoding="encode")
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, encoded.dictionary.to_pylist()


def _text(name: object) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _numbers(column: pa.Array, name: str, path: Path) -> NDArray[np.float64]:
    """Return a column as float64, null as NaN; raises UserError if it holds no numbers."""
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise UserError(f"{path}, column {name}: holds {column.type}: coordinates must be numbers")
    values: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(
        zero_copy_only=False
    )
    return values
