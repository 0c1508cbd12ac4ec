"""A results folder belongs to the settings that it was made with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from teramind.config.values import flatten
from teramind.config.whole import Config
from teramind.errors import UserError
from teramind.files import read_json


def differences(made: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """One line per key in which two identities differ."""
    keys = [*asked, *(key for key in made if key not in asked)]
    return [
        f"{key} was {made.get(key)!r}, is now {asked.get(key)!r}"
        for key in keys
        if made.get(key) != asked.get(key)
    ]


def refuse_unwritable_results(config: Config) -> None:
    """Stop when nothing can be written to the results folder.

    Raises:
        UserError: naming it.
    """
    folder = Path(config.results).absolute()
    present = next(path for path in (folder, *folder.parents) if path.exists())
    if not present.is_dir():
        raise UserError(f"results: {config.results}: {present} is a file; name a folder")
    if not os.access(present, os.W_OK):
        raise UserError(f"results: {config.results} cannot be written to")


def other_settings(config: Config) -> list[str]:
    """One line per setting that changed since the record and leaves the voxels as they are.

    Raises:
        UserError: when the record is not readable.
    """
    made = _record(config, "config")
    if made is None:
        return []
    return differences(flatten(made), flatten(config.model_dump(mode="json")))


RECORDS = {"provenance.json", "plan.json", "plan.txt", "logs", "benchmarks", "download"}
"""What lies in a results folder before anything is made of the data."""


def holds_results(folder: Path) -> bool:
    """Whether a results folder holds more than records: a first job may have failed."""
    if not folder.is_dir():
        return False
    made = (path for path in folder.iterdir() if path.name not in RECORDS)
    shown = (path for top in made for path in (top, *top.rglob("*")) if path.is_file())
    return any(not any(p.startswith(".") for p in path.relative_to(folder).parts) for path in shown)


def refuse_other_results(config: Config) -> None:
    """Stop when the results folder holds what was made with other settings.

    Raises:
        UserError: naming every key that differs, or when the record is not readable.
    """
    made = _record(config, "identity")
    found = [] if made is None else differences(made, config.identity())
    if found and holds_results(config.files.root):
        raise UserError(
            f"{config.results}: made with other settings ({'; '.join(found)}); "
            "name another `results` folder or remove this one"
        )


def _record(config: Config, part: str) -> dict[str, Any] | None:
    """A part of the record of the run that made the results, None without one; it must hold all."""
    provenance = config.files.provenance
    if not provenance.is_file():
        return None
    try:
        record = read_json(provenance)
        return {name: dict(record[name]) for name in ("identity", "config", "inputs")}[part]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{provenance}: not readable; remove it or the results folder") from None
