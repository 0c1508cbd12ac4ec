"""Rows of CSV tables, batch by batch, and what is wrong with those that are none."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from teramind.errors import UserError

_BATCH_BYTES = 16 << 20
_START_BYTES = 1 << 16

_FOREIGN = {
    b"PAR1": "a Parquet file: let its name end in .parquet",
    b"PK\x03\x04": "a zip archive or a spreadsheet: save the table as CSV",
    b"\xff\xfe": "UTF-16 text: save the table as UTF-8",
    b"\xfe\xff": "UTF-16 text: save the table as UTF-8",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself with `git lfs pull`",
}
"""How a file begins -> what it is."""

_FAULTS: Sequence[tuple[str, Callable[[re.Match[str], Sequence[str]], str]]] = (
    (
        r"Row #(\d+): Expected (\d+) columns, got (\d+): (.*)",
        lambda found, _: "row {0}: {2} columns, the header has {1}: {3!r}".format(*found.groups()),
    ),
    (
        r"column #(\d+): Row #(\d+): .*to double: invalid value '(.*)'",
        lambda found, header: (
            f"column {header[int(found[1])]}, row {found[2]}: {found[3]!r} is no number;"
            " decimals take a point"
        ),
    ),
    (
        r"column #(\d+): Row #(\d+): .*invalid UTF8",
        lambda found, header: (
            f"column {header[int(found[1])]}, row {found[2]}: not UTF-8; save the table as UTF-8"
        ),
    ),
    (r"Empty CSV", lambda *_: "row 2: missing; a molecule table needs at least one row"),
    (
        r"straddl",
        lambda *_: f"a row is longer than {_BATCH_BYTES >> 20} MiB: a quote that never closes?",
    ),
)
"""What pyarrow says -> what is wrong; its rows count the header as row 1."""


def csv_header(path: Path) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        UserError: for a file whose beginning is no comma-separated UTF-8 text.
    """
    start = _start(path)
    for beginning, kind in _FOREIGN.items():
        if start.startswith(beginning):
            raise UserError(f"{path}: not a CSV table but {kind}")
    complete = start if len(start) < _START_BYTES else start[: start.rfind(b"\n") + 1]
    try:
        text = complete.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text: save the table as UTF-8") from None
    if "\0" in text or not text.strip():
        raise UserError(f"{path}: not a CSV table: it begins with no row of column names")
    header = next(csv.reader(io.StringIO(text)))
    separator = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
    if separator:
        raise UserError(f"{path}: columns are separated by {separator!r}: must be ','")
    return header


def csv_batches(
    path: Path, header: Sequence[str], *, names: Sequence[str], numbers: Collection[str]
) -> Iterator[pa.RecordBatch]:
    """Yield the columns `names` of a table, those in `numbers` as float64, the rest as text.

    Raises:
        UserError: naming the row and column of the first fault.
    """
    types = {name: pa.float64() if name in numbers else pa.string() for name in names}
    convert = pa.csv.ConvertOptions(include_columns=list(names), column_types=types)
    options = pa.csv.ReadOptions(block_size=_BATCH_BYTES, use_threads=False)
    try:
        with pa.csv.open_csv(path, read_options=options, convert_options=convert) as reader:
            yield from reader
    except pa.ArrowInvalid as error:
        for pattern, words in _FAULTS:
            if found := re.search(pattern, str(error), re.DOTALL):
                raise UserError(f"{path}, {words(found, header)}") from None
        raise


def _start(path: Path) -> bytes:
    """The first bytes of the text, decompressed."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if packed != path.name.endswith(".gz"):
        right = "gzip-compressed: let its name end in .csv.gz" if packed else "not gzip-compressed"
        raise UserError(f"{path}: {right}{'' if packed else ': let its name end in .csv'}")
    with gzip.open(path) if packed else path.open("rb") as file:
        return file.read(_START_BYTES)
