"""A row of the tables: what is brought, and the one line that is said."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from teramind.errors import UserError

MEMORY = 2 << 30
"""Bytes beyond what the tests have that no bad input may ask for."""

SECONDS = 60


@dataclass(frozen=True)
class Row:
    """What is brought, in words; the function that makes it in a folder; the line that is said.

    In the line, {} stands for the path that the function returns, {folder} for the folder. A line
    that ends in an ellipsis goes on with a library's own words.
    """

    brought: str
    make: Callable[[Path], Path]
    said: str
    settings: dict[str, Any]


def row(brought: str, make: Callable[[Path], Path], said: str, **settings: Any) -> Any:
    """A row as a parameter, named after what is brought."""
    return pytest.param(Row(brought, make, said, settings), id=brought)


def file(name: str, content: str | bytes) -> Callable[[Path], Path]:
    """A function that makes a file."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


def check(row: Row, read: Callable[..., Any], folder: Path) -> None:
    """Bring it, and hear exactly the line, with nothing left behind and no memory taken."""
    path = row.make(folder)
    before = contents(folder)
    with bounded(), pytest.raises(UserError) as caught:
        read(path, **row.settings)
    said = str(caught.value)
    wanted = row.said.replace("{}", str(path)).replace("{folder}", str(folder))
    if wanted.endswith("..."):
        assert said.startswith(wanted[:-3]), said
        assert len(said) > len(wanted) - 3
    else:
        assert said == wanted
    assert "\n" not in said
    assert contents(folder) == before


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


@contextmanager
def bounded() -> Iterator[None]:
    """A block that may neither hang nor allocate what a header claims."""

    def late(*_: object) -> None:
        pytest.fail(f"still busy after {SECONDS} s")

    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + MEMORY, limits[1]))
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)
