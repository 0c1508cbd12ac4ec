"""What every workflow script does around its one call: log, threads, and errors in one line."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from teramind.config import Config, parse_config
from teramind.errors import UserError
from teramind.files import require_inside


@contextmanager
def job(snakemake: Any) -> Iterator[Config]:
    """Run a rule's script: output goes to the rule's log, mistakes end as a line each.

    Nothing is written where a link leads out of the results folder.

    Args:
        snakemake: the object Snakemake gives to scripts.

    Yields:
        The validated configuration.
    """
    try:
        _require_own_folder(snakemake)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    terminal = os.dup(2)
    with open(snakemake.log[0], "w", encoding="utf-8") as log:  # noqa: PTH123 - given as text
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield parse_config(snakemake.config)
        except Exception as error:
            line = describe(error)
            if line is None:
                raise
            message = "".join(f"error: {part}\n" for part in line.splitlines()).encode()
            os.write(terminal, message)
            with suppress(OSError):  # a full disk takes no more log
                os.write(2, message)
            sys.exit(1)


def _require_own_folder(snakemake: Any) -> None:
    """Raise UserError where a link leads what the job writes out of the results folder."""
    results = Path(parse_config(snakemake.config).results)
    written = [*snakemake.output, *snakemake.log, *snakemake.params]
    inside = {Path(p) for p in written if isinstance(p, str) and Path(p).is_relative_to(results)}
    for path in sorted(inside | set(results.iterdir())):
        require_inside(path, results)


def describe(error: Exception) -> str | None:
    """Return the lines for an error that is the user's to mend; None for a defect of ours."""
    if isinstance(error, UserError):
        return str(error)
    if _out_of_memory(error):
        return (
            "out of memory; use a machine with more, or take less at a time: a smaller "
            "generate.slab, in training a smaller train.batch or more train.accumulate"
        )
    known = {errno.ENOSPC: "the disk is full", errno.EROFS: "the folder is read-only"}
    known |= {errno.EACCES: "no permission", errno.EDQUOT: "the disk quota is used up"}
    if isinstance(error, OSError) and error.errno in known:
        return f"{error.filename or 'writing'}: {known[error.errno]}; nothing half-written is kept"
    return None


def _out_of_memory(error: Exception) -> bool:
    """Whether memory could not be had, here or on a GPU. Knows torch's errors without torch."""
    refused = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or refused
