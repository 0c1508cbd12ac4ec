"""A web server on this machine that breaks connections when told to."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves `files` (name -> bytes); `requests` notes each as (name, first byte asked for).

    `cuts` are the numbers of bytes after which the next connections break; `resumes` whether it
    answers a request for a range; `status` what it answers instead of 200.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.cuts, self.resumes, self.status = files, [], True, 200
        self.requests: list[tuple[str, int]] = []
        self.versions = dict.fromkeys(files, "1")

    @property
    def url(self) -> str:
        """Folder of the files."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        """Send a file or what is asked of it."""
        server, name = self.server, self.path.strip("/")
        content = server.files.get(name)
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(span[1]) if span and server.resumes else 0
        server.requests.append((name, start))
        if content is None or server.status != 200:
            self.send_error(404 if content is None else server.status)
            return
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{server.versions[name]}"')
        self.end_headers()
        stop = start + server.cuts.pop(0) if server.cuts else None
        self.wfile.write(content[start:stop])
        self.close_connection = True

    def log_message(self, format: str, *values: object) -> None:
        """Stay silent."""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FileServer]:
    """A server of these files while the block runs."""
    with FileServer(files) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
