"""Zip archives from anywhere: opened with one clear error, and one member taken out safely."""

from __future__ import annotations

import lzma
import shutil
import zipfile
import zlib
from pathlib import Path

from teramind.errors import UserError

BROKEN = (
    *(OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
"""What reading a damaged or hostile archive may raise."""


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip archive for reading.

    Raises:
        UserError: when it is none or is cut off.
    """
    try:
        return zipfile.ZipFile(path)
    except BROKEN as error:
        raise UserError(f"{path}: not a zip archive, or cut off ({error})") from error


def extract(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, *, largest: int
) -> None:
    """Write one member to `target`, whatever path the archive gives it.

    Args:
        archive: opened by `open_zip`.
        member: which.
        target: file to make; its folder exists.
        largest: most bytes that it may unpack to.

    Raises:
        UserError: when it is larger, or damaged.
    """
    where = f"{archive.filename}/{member.filename}"
    if member.file_size > largest:
        raise UserError(f"{where}: unpacks to {member.file_size} bytes; {largest} at most")
    try:
        # A member that goes on beyond the size it claims fails its checksum.
        with archive.open(member) as packed, target.open("xb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)
    except BROKEN as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:  # of the disk, not of the archive
            raise
        raise UserError(f"{where}: damaged ({error})") from error
