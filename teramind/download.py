"""The published files, fetched once: a broken download goes on, sums are known or recorded."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import requests

from teramind.archives import open_zip
from teramind.errors import UserError
from teramind.files import atomic_path, read_json

ATTEMPTS = 6
"""Failures in a row, with nothing received, after which a download gives up."""

CHUNK = 1 << 16
"""Bytes that are received together; an unfinished chunk is lost when a connection breaks."""

_TIMEOUT = (20.0, 60.0)  # seconds to connect, and between bytes
_GIGABYTE = 10**9
_FINAL = set(range(400, 500)) - {requests.codes.request_timeout, requests.codes.too_many_requests}


def fetch(
    name: str, folder: Path, *, url: str, sha256: str | None = None, wait: float = 2.0
) -> dict[str, Any]:
    """Make sure that a published zip archive is in a folder, whole and as it was first seen.

    Args:
        name: file name.
        folder: where it belongs; a file that is there and has the right sum is kept.
        url: folder of the file on a server.
        sha256: its sum, if known; else the one recorded beside it as `<name>.sha256`, which is
            written on first use, and anew where another sum was given and right.
        wait: seconds before a second attempt; doubles with every further one.

    Returns:
        The record: url, bytes and sha256.

    Raises:
        UserError: when it cannot be fetched, does not fit on the disk, has another sum or is no
            zip archive, and when the recorded sum is none.
    """
    source, target, noted = f"{url}/{name}", folder / name, folder / f"{name}.sha256"
    folder.mkdir(parents=True, exist_ok=True)
    known = sha256 or _recorded(noted)
    if not target.exists() or (known and known != _sum(target)):
        download = ResumingDownload(folder / f"{name}.part", wait=wait)
        try:
            download(source, target, sha256=known)
        except requests.RequestException as error:
            raise UserError(
                f"{source}: cannot be fetched ({_reason(error)}); run again to go on where it "
                f"ended, or put the file at {target}"
            ) from error
    open_zip(target).close()
    found = known or _sum(target)
    if sha256 or not noted.exists():
        with atomic_path(noted) as temporary:
            temporary.write_text(f"{found}  {name}\n", encoding="utf-8")
    return {"url": source, "bytes": target.stat().st_size, "sha256": found}


class ResumingDownload:
    """A download that keeps what arrived, and asks for the rest only.

    What arrived lies in `part`, beside a note of the version it belongs to; when the file on the
    server has changed since, the download starts anew.
    """

    def __init__(self, part: Path, *, wait: float) -> None:
        self.part, self.wait = part, wait
        self.note = part.with_name(f"{part.name}.json")

    def __call__(self, url: str, target: Path, *, sha256: str | None) -> None:
        """Fetch `url`; `target` is replaced once it is a whole archive of this sum, if any."""
        with self._alone() as file:
            while self._begun().get("bytes") != file.tell():
                self._persist(url, file)
            file.flush()
            os.fsync(file.fileno())
            self._require_zip(url)
            self._require_sum(url, sha256)
            self.part.replace(target)
        self.note.unlink()

    def _require_zip(self, url: str) -> None:
        """Keep nothing that is no archive, such as a page that says sorry."""
        try:
            open_zip(self.part).close()
        except UserError:
            self.part.unlink()
            raise UserError(f"{url}: what came is not a zip archive") from None

    def _require_sum(self, url: str, sha256: str | None) -> None:
        """Keep nothing that is another file than the one known."""
        if sha256 and (found := _sum(self.part)) != sha256:
            self.part.unlink()
            self.note.unlink()
            raise UserError(
                f"{url}: expected sha256:{sha256} but got {found}; run again, or mend the sum: that"
                f" of download.sha256, or else the one in {self.part.with_suffix('.sha256')}"
            )

    @contextmanager
    def _alone(self) -> Iterator[IO[bytes]]:
        """The part, opened for appending by this process alone."""
        with self.part.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{self.part}: another run is fetching it; wait for it") from None
            yield file

    def _begun(self) -> dict[str, Any]:
        """Version and bytes of the file that the part belongs to; empty if unknown."""
        try:
            note: dict[str, Any] = read_json(self.note)
        except (OSError, ValueError):
            return {}
        return note

    def _persist(self, url: str, file: IO[bytes]) -> None:
        """Ask until all is there, or nothing comes any more."""
        failures = 0
        while True:
            before = file.tell()
            try:
                return self._receive(url, file)
            except requests.RequestException as error:
                refused = error.response is not None and error.response.status_code in _FINAL
                failures = 1 if file.tell() > before else failures + 1
                if refused or failures >= ATTEMPTS:
                    raise
                print(f"{url}: {_reason(error)}; going on", file=sys.stderr, flush=True)
                time.sleep(self.wait * 2 ** (failures - 1))

    def _receive(self, url: str, file: IO[bytes]) -> None:
        """Append what one request for the missing bytes gives."""
        start = file.tell()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            whole = response.status_code == requests.codes.ok
            if response.status_code != requests.codes.requested_range_not_satisfiable:
                response.raise_for_status()
            if start and not self._continues(response, start):
                file.truncate(0)
                file.seek(0)
                if not whole:
                    raise requests.ConnectionError("the file on the server is another one now")
            self._append(response, file)

    def _continues(self, response: requests.Response, start: int) -> bool:
        """Whether a response goes on with the version that the part belongs to."""
        note = self._begun()
        span = f"bytes {start}-{note.get('bytes', 0) - 1}/{note.get('bytes')}"
        return response.headers.get("Content-Range") == span and note["version"] == _version(
            response
        )

    def _append(self, response: requests.Response, file: IO[bytes]) -> None:
        """Write a response's content behind what is there, and check its length."""
        start = file.tell()
        if "Content-Length" not in response.headers:
            raise requests.ConnectionError("the server does not say how long the file is")
        total = start + int(response.headers["Content-Length"])
        if not start:
            self.note.write_text(json.dumps({"version": _version(response), "bytes": total}))
        if shutil.disk_usage(self.part.parent).free < total - start:
            gigabytes = (total - start) / _GIGABYTE
            raise UserError(f"{self.part.parent}: {gigabytes:.1f} GB more are needed on this disk")
        progress = Progress(self.part.stem, start, total)
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            progress(file.tell())
        if file.tell() != total:
            raise requests.ConnectionError(f"{file.tell()} of {total} bytes came")


class Progress:
    """Tells bytes, rate and time left on standard error every few seconds."""

    def __init__(self, name: str, start: int, total: int, *, seconds: float = 10.0) -> None:
        self.name, self.start, self.total, self.seconds = name, start, total, seconds
        self.began = self.told = time.monotonic()

    def __call__(self, done: int) -> None:
        """Take note that `done` bytes are there."""
        now = time.monotonic()
        if now - self.told > self.seconds:
            self.told = now
            rate = (done - self.start) / (now - self.began)
            print(
                f"{self.name}: {done / _GIGABYTE:.2f} of {self.total / _GIGABYTE:.2f} GB, "
                f"{rate / 10**6:.1f} MB/s, {(self.total - done) / rate / 60:.0f} min left",
                file=sys.stderr,
                flush=True,
            )


def _sum(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _recorded(path: Path) -> str | None:
    """The sum in a file such as `sha256sum` writes; None if there is no file."""
    if not path.exists():
        return None
    found = re.match(rb"[0-9a-f]{64}\b", path.read_bytes())
    if not found:
        raise UserError(f"{path}: begins with no SHA-256 sum; give download.sha256, or remove it")
    return found[0].decode()


def _version(response: requests.Response) -> str | None:
    """What tells one version of a file on a server from the next."""
    return response.headers.get("ETag") or response.headers.get("Last-Modified")


def _reason(error: BaseException) -> str:
    """The innermost cause of an error, in one line."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    while error.__context__ is not None:
        error = error.__context__
    return (str(error) or type(error).__name__).splitlines()[0]
