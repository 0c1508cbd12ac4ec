"""Molecules on their way to the raster: packed, spilled to numbered files, then summed.

A record is a molecule count with its place: the block's column, the bin inside the block and the
gene are packed into one 64-bit key, so that sorting keys sorts by block, then bin, then gene.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from teramind.errors import UserError

RECORD = np.dtype([("key", "<u8"), ("count", "<u4")])
MAX_COUNT = int(np.iinfo(np.uint32).max)
_GENE_BITS, _BIN_BITS = 16, 12


def pack(
    *, block: NDArray[np.int64], bins: NDArray[np.int64], gene: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Return the sortable key of (block column, bin inside the block, gene)."""
    key = (block << (_BIN_BITS + _GENE_BITS)) | (bins << _GENE_BITS) | gene
    return key.astype(np.uint64)


def unpack(
    key: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.uint16]]:
    """Return the block columns, the bins inside their block and the genes of keys."""
    place = key >> np.uint64(_GENE_BITS)
    bins = (place & np.uint64((1 << _BIN_BITS) - 1)).astype(np.uint16)
    gene = (key & np.uint64((1 << _GENE_BITS) - 1)).astype(np.uint16)
    return (place >> np.uint64(_BIN_BITS)).astype(np.int64), bins, gene


def sum_records(records: NDArray[np.void]) -> NDArray[np.void]:
    """Return the records sorted by key, counts of equal keys added.

    Raises UserError where a sum exceeds 32 bits.
    """
    if len(records) == 0:
        return records
    order = np.argsort(records["key"])
    key = records["key"][order]
    first = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    count = np.add.reduceat(records["count"][order], first, dtype=np.uint64)
    if count.max() > MAX_COUNT:
        raise UserError(
            f"{count.max()} molecules of one gene in one bin, {MAX_COUNT} at most:"
            " check that the counts are raw, and the origin, pixel size and units"
        )
    summed = np.empty(len(first), RECORD)
    summed["key"], summed["count"] = key[first], count
    return summed


class Spill:
    """Numbered files of records, appended to in batches so that memory stays bounded."""

    def __init__(self, folder: Path, *, batch: int = 1 << 21) -> None:
        """Spill to `folder` whenever `batch` records wait, and sum as many at a time."""
        self._folder, self._batch = folder, batch
        self._waiting: list[tuple[NDArray[np.int64], NDArray[np.void]]] = []
        self._count = 0

    def add(
        self, *, file: NDArray[np.int64], key: NDArray[np.uint64], count: NDArray[np.integer]
    ) -> None:
        """Add one record per entry to the file of its number."""
        records = np.empty(len(key), RECORD)
        records["key"], records["count"] = key, count
        self._waiting.append((file, records))
        self._count += len(key)
        if self._count >= self._batch:
            self.flush()

    def flush(self) -> None:
        """Append all waiting records to their files."""
        if self._count == 0:
            return
        file = np.concatenate([numbers for numbers, _ in self._waiting])
        records = np.concatenate([records for _, records in self._waiting])
        self._waiting, self._count = [], 0
        order = np.argsort(file, kind="stable")
        file, records = file[order], records[order]
        starts = np.flatnonzero(np.diff(file, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(file)], strict=True):
            with self._path(int(file[start])).open("ab") as stream:
                stream.write(records[start:stop].data)  # tofile would not notice a full disk

    def condense(self, file: int) -> NDArray[np.void]:
        """Sum the records of a file, leave them in it sorted, and return them."""
        records = np.empty(0, RECORD)
        for piece in self._pieces(file):
            records = sum_records(np.concatenate((records, piece)))
        if len(records):
            self._path(file).write_bytes(records.data)
        return records

    def read(self, file: int) -> NDArray[np.void]:
        """Return all records of a file."""
        return np.concatenate([np.empty(0, RECORD), *self._pieces(file)])

    def _pieces(self, file: int) -> Iterator[NDArray[np.void]]:
        path = self._path(file)
        size = path.stat().st_size // RECORD.itemsize if path.exists() else 0
        for start in range(0, size, self._batch):
            yield np.fromfile(path, RECORD, self._batch, offset=start * RECORD.itemsize)

    def _path(self, file: int) -> Path:
        return self._folder / f"{file}.records"
