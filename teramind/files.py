"""Files that are either whole or absent, and the digests that prove it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from teramind.errors import UserError

_LEFTOVER = re.compile(r"\.[0-9a-f]{8}\..+|.+\.[0-9a-f]{32}\.partial")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that takes its name once the block succeeds.

    The block may create a file or a directory there; it is flushed to disk, then renamed. If the
    block raises, the sibling is removed and `path` stays as it was. The sibling keeps the suffix
    of `path`, which some writers choose their format by. A directory replaces only an absent or
    empty one. An OSError names `path`, never the sibling.
    """
    path = Path(path)
    temporary = _sibling(path)
    try:
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            flush(temporary)
            temporary.replace(path)
            _fsync(path.parent)
    except BaseException:
        _remove(temporary)
        raise


@contextmanager
def scratch_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`, with a temporary file's name; gone after the block."""
    folder = _sibling(Path(path))
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sibling(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(4)}.{path.name}")


def require_inside(path: str | Path, folder: str | Path) -> None:
    """Refuse to write where a link leads out of `folder`; the folder itself may be a link.

    Raises:
        UserError: naming the path.
    """
    if not Path(path).resolve().is_relative_to(Path(folder).resolve()):
        raise UserError(f"{path}: a link leads it out of {folder}; remove the link")


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Name `path` in an OSError of the block that names nothing, or a temporary file beside it."""
    path = Path(path)
    try:
        yield
    except OSError as error:
        if not error.filename or Path(str(error.filename)).parent == path.parent:
            error.filename = str(path)
        raise


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove what killed writers left below `folder`: temporary files and folders, ours and zarr's.

    Nothing may be writing there. Returns what was removed.
    """
    found = []
    for parent, folders, files in os.walk(folder):
        left = [name for name in (*folders, *files) if _LEFTOVER.fullmatch(name)]
        folders[:] = [name for name in folders if name not in left]
        found += [Path(parent, name) for name in left]
    for path in found:
        _remove(path)
    return found


def write_json(path: str | Path, obj: Any) -> None:
    """Write `obj` as indented JSON, atomically; NaN and infinity raise ValueError."""
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file that this program wrote."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def digest(source: str | Path | bytes | memoryview) -> str:
    """Return the 128-bit BLAKE2b digest, 32 hexadecimal digits, of bytes or of a path's content."""
    if isinstance(source, bytes | memoryview):
        return _blake2b(source).hexdigest()
    with Path(source).open("rb") as file:
        return hashlib.file_digest(file, _blake2b).hexdigest()


def _blake2b(content: bytes | memoryview = b"") -> hashlib.blake2b:
    return hashlib.blake2b(content, digest_size=16)


def flush(path: Path) -> None:
    """Wait until a file, or a folder and all in it, is on the disk."""
    for child in path.rglob("*") if path.is_dir() else ():
        _fsync(child)
    _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
