"""Rows of molecule tables, CSV, CSV.gz and Parquet, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from teramind.errors import UserError, foreign, some
from teramind.expression.csv_batches import csv_batches, csv_header
from teramind.expression.sections import section_label

_BATCH_ROWS = 1 << 19
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class MoleculeColumns:
    """Names of a table's columns; no section column means that all rows are of section 0."""

    gene: str = "gene"
    x: str = "x"
    y: str = "y"
    section: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The columns to read."""
        return (self.gene, self.x, self.y, *((self.section,) if self.section else ()))


class Batch(NamedTuple):
    """Rows of a table: coordinates, and gene and section as codes of a list of names."""

    y: NDArray[np.float64]
    x: NDArray[np.float64]
    gene: NDArray[np.int64]
    genes: list[str]
    section: NDArray[np.int64]
    sections: list[str]


def read_batches(path: Path, columns: MoleculeColumns) -> Iterator[Batch]:
    """Yield a table's rows in file order; raises UserError where it cannot be read."""
    if path.is_dir():
        raise UserError(
            f"{path}: a folder, no molecule table (.csv, .csv.gz or .parquet); tiles are read by"
            " kind: tiles, and their names say what they cover"
        )
    if not path.is_file():
        raise UserError(f"{path}: no such file: give a molecule table (.csv, .csv.gz or .parquet)")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty: give a molecule table with rows")
    read = _parquet_batches if path.suffix == ".parquet" else _csv_batches
    with foreign(f"{path}: cannot be read as a molecule table"):
        for batch in read(path, columns):
            yield _decode(batch, columns, path)


def first_row(path: Path) -> int:
    """Return the number of a table's first row: that of a CSV follows its header, row 1."""
    return 1 if path.suffix == ".parquet" else 2


def _parquet_batches(path: Path, columns: MoleculeColumns) -> Iterator[pa.RecordBatch]:
    # By default all that is wanted of a group is read ahead, however large the group is.
    options = {"buffer_size": _BUFFER_BYTES, "pre_buffer": False}
    with pa.parquet.ParquetFile(path, **options) as file:
        _require_columns(path, columns, file.schema_arrow.names)
        for group in range(file.num_row_groups):  # one reader of all keeps what it has read
            yield from file.iter_batches(_BATCH_ROWS, [group], list(columns.names))


def _csv_batches(path: Path, columns: MoleculeColumns) -> Iterator[pa.RecordBatch]:
    if not path.name.endswith((".csv", ".csv.gz")):
        raise UserError(
            f"{path}: not a molecule table: the name must end in .csv, .csv.gz or .parquet"
        )
    header = csv_header(path)
    _require_columns(path, columns, header)
    yield from csv_batches(path, header, names=columns.names, numbers={columns.x, columns.y})


def _require_columns(path: Path, columns: MoleculeColumns, present: Sequence[str]) -> None:
    absent = [name for name in columns.names if name not in present]
    if absent:
        raise UserError(f"{path}: columns missing: {some(absent)}; present: {some(present)}")
    if len(set(columns.names)) < len(columns.names):
        raise UserError(
            f"{path}: gene, x, y and section are to be columns {', '.join(columns.names)}:"
            " name a column of its own for each"
        )
    for name in columns.names:
        if (times := present.count(name)) > 1:
            raise UserError(f"{path}: {times} columns are named {name}: rename all but one")


def _decode(batch: pa.RecordBatch, columns: MoleculeColumns, path: Path) -> Batch:
    gene, genes = _codes(batch.column(columns.gene), columns.gene, path)
    if columns.section:
        section, values = _codes(batch.column(columns.section), columns.section, path)
    else:
        section, values = np.zeros(len(batch), np.int64), [""]
    y, x = (_numbers(batch.column(name), name, path) for name in (columns.y, columns.x))
    with foreign(f"{path}, column {columns.section}: must be numbers or UTF-8 text"):
        labels = [section_label(_decoded(value)) if columns.section else "" for value in values]
    with foreign(f"{path}, column {columns.gene}: names must be UTF-8 text"):
        return Batch(y, x, gene, [_text(name) for name in genes], section, labels)


def _codes(column: pa.Array, name: str, path: Path) -> tuple[NDArray[np.int64], list[object]]:
    """Return a column as codes of a list of its different values, null among them."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_nested(column.type):
        raise UserError(f"{path}, column {name}: holds {column.type}: text or numbers expected")
    encoded = column.dictionary_encode(null_encoding="encode")
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, encoded.dictionary.to_pylist()


def _text(name: object) -> str:
    """A gene name; blanks around it, as padded columns have them, are no part of it."""
    return str(_decoded(name)).strip()


def _decoded(value: object) -> object:
    """A value of a column, text where Parquet has it as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _numbers(column: pa.Array, name: str, path: Path) -> NDArray[np.float64]:
    """Return a column as float64, null as NaN; raises UserError if it holds no numbers."""
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise UserError(f"{path}, column {name}: holds {column.type}: coordinates must be numbers")
    values: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(
        zero_copy_only=False
    )
    return values
