"""Finished results against their records: shards by digest, metadata by their text.

A record is the receipt of a slab (its shards at level 0) or that of a section's pyramid (the levels
above), of the volume or of the attention maps. Records are what Snakemake sees of them: without
one, it makes its shards again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teramind.errors import UserError
from teramind.files import read_json
from teramind.volume import verify_shards
from teramind.volume.metadata import RECORD, damaged_metadata, restore_metadata

ROOTS = {"volume": "volume.zarr", "attention": "."}
"""Folder of volumes -> what the paths of metadata in its layout.json start from."""

FOLDERS = ("receipts", "pyramid")
"""Where the records lie, beside their volumes."""

_SHARD = re.compile(r"\d+/c/\d+/(?P<section>\d+)/\d+/\d+")
"""Path of a shard in a volume: level, stain, section, row, column."""


@dataclass(frozen=True)
class Finding:
    """What was found behind one record.

    Attributes:
        record: the record's file.
        shards: how many shards were compared.
        faults: one line per shard that differs, or one on the record itself; empty if all is well.
    """

    record: Path
    shards: int
    faults: tuple[str, ...]


def verify(results: Path, *, repair: bool, threads: int) -> str:
    """Compare every recorded shard of a results folder with its record, and the metadata.

    Each shard is read once, in blocks: memory stays small whatever the volume.

    Args:
        results: the results folder.
        repair: remove the records that do not hold, so that Snakemake makes their shards again,
            and write damaged metadata as they were.
        threads: shards read at a time.

    Returns:
        A line that says what was compared.

    Raises:
        UserError: one line per shard or metadata file that is missing or differs and per
            unreadable record.
    """
    metadata: dict[Path, str] = {}
    for folder, root in ROOTS.items():
        metadata |= damaged_metadata(results / folder / RECORD, results / folder / root)
    records = _records(results)
    if not records and not metadata:
        raise UserError(f"{results}: no record of any shard; snakemake writes them with the slabs")
    findings = compare(records, threads=threads)
    bad = [finding for finding in findings if finding.faults]
    if not bad and not metadata:
        shards = sum(finding.shards for finding in findings)
        return f"{results}: {shards} shards of {len(findings)} records are as they were written"
    lines = [f"{path}: differs from what was written, or is missing" for path in metadata]
    lines += [line for finding in bad for line in finding.faults]
    mend = f"`teramind verify --repair {results}` prepares the repair"
    if metadata:
        then = "written as they were" if repair else mend
        lines.append(f"{len(metadata)} metadata files: {then}")
    if bad:
        then = "removed; snakemake, run as before, makes their shards again" if repair else mend
        lines.append(f"{len(bad)} of {len(findings)} records do not hold: {then}")
    if repair:
        restore_metadata(metadata)
        for finding in bad:
            finding.record.unlink(missing_ok=True)
    raise UserError(*lines)


def _records(results: Path) -> list[Path]:
    """The records of the volume and of the attention maps, in their order."""
    records = [
        path
        for kind in ROOTS
        for name in FOLDERS
        for path in sorted((results / kind / name).glob("*.json"))
    ]
    if not records and not any((results / kind / RECORD).is_file() for kind in ROOTS):
        raise UserError(f"{results}: no record of a volume here; name a results folder")
    return records


def compare(records: Sequence[Path], *, threads: int) -> list[Finding]:
    """One finding per record."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(_compare, records))


def require_section(volume: Path, receipts: Iterable[Path], *, z: int) -> None:
    """Refuse to go on from damaged shards of one section at level 0.

    Raises:
        UserError: one line per shard that differs from its receipt: how to make it again.
    """
    lines = []
    for path in receipts:
        shards = [shard for shard in _read(path)[volume] if _section(shard) == z]
        lines += [f"{line}; {_again(path)}" for line in verify_shards(volume, shards)]
    if lines:
        raise UserError(*lines)


def _compare(path: Path) -> Finding:
    try:
        found = _read(path)
    except UserError as error:
        return Finding(path, 0, (str(error),))
    faults = [line for volume, shards in found.items() for line in verify_shards(volume, shards)]
    return Finding(path, sum(map(len, found.values())), tuple(faults))


def _read(path: Path) -> dict[Path, list[dict[str, Any]]]:
    """The shards of each volume in a record of the slab or section that its file is named after.

    A record of attention has them by pathway, which is the name of a volume.
    """
    folder = path.parent.parent
    try:
        record: dict[str, Any] = read_json(path)
        name = record["slab"] if "slab" in record else f"{record['section']:03d}"
        shards = record["shards"]
        by_name = shards if isinstance(shards, dict) else {"volume": shards}
        found = {folder / f"{volume}.zarr": _checked(listed) for volume, listed in by_name.items()}
        if any(volume.parent != folder for volume in found):
            raise ValueError(path)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise UserError(f"{path}: damaged; {_again(path)}") from None
    if name != path.stem:
        raise UserError(f"{path}: holds the record of {name}; {_again(path)}")
    return found


def _checked(shards: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same. Raises ValueError or KeyError for entries that are none."""
    for shard in shards:
        _section(shard)
        if not {"bytes", "blake2b"} <= shard.keys():
            raise KeyError(shard["path"])
    return list(shards)


def _section(shard: dict[str, Any]) -> int:
    """Section of a shard. Raises ValueError when its path is not one inside a volume."""
    if not (found := _SHARD.fullmatch(shard["path"])):
        raise ValueError(shard["path"])
    return int(found["section"])


def _again(path: Path) -> str:
    return f"remove {path} and run snakemake as before to make it again"
