"""Published files are fetched once, whole, and as they were first seen."""

import fcntl
import hashlib
import io
import shutil
import sys
import zipfile
from collections import namedtuple

import numpy as np
import pytest
from file_server import serving
from hypothesis import given, settings
from hypothesis import strategies as st

from teramind.download import ATTEMPTS, CHUNK, fetch
from teramind.errors import UserError

NAME = "gene_1.zip"


def archive(size=1_000_000, seed=0):
    """A zip archive of about this size."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        packed.writestr("tile", np.random.default_rng(seed).bytes(size))
    return content.getvalue()


CONTENT = archive()
GIVE_UP_AT = 4 * CHUNK
SUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    with serving({NAME: CONTENT}) as running:
        yield running


def get(server, folder, **options):
    return fetch(NAME, folder, **{"url": server.url, "wait": 0.01} | options)


def left(folder):
    return {path.name for path in folder.iterdir()}


def test_a_file_is_fetched_once_and_its_sum_recorded(server, tmp_path):
    record = get(server, tmp_path / "new")
    assert (tmp_path / "new" / NAME).read_bytes() == CONTENT
    assert record["sha256"] == SUM and record["bytes"] == len(CONTENT)
    assert (tmp_path / "new" / f"{NAME}.sha256").read_text() == f"{SUM}  {NAME}\n"
    assert get(server, tmp_path / "new") == record
    assert server.requests == [(NAME, 0)]
    assert left(tmp_path / "new") == {NAME, f"{NAME}.sha256"}


def test_a_file_that_the_user_put_there_is_not_fetched(server, tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT)
    assert get(server, tmp_path)["sha256"] == SUM
    assert server.requests == []


@settings(max_examples=10)
@given(cuts=st.lists(st.integers(CHUNK, 5 * CHUNK), max_size=8))
def test_a_connection_that_breaks_is_taken_up_where_it_broke(tmp_path_factory, cuts):
    folder = tmp_path_factory.mktemp("cut")
    with serving({NAME: CONTENT}) as server:
        server.cuts = list(cuts)
        get(server, folder, sha256=SUM)
        starts = [start for _, start in server.requests]
    assert (folder / NAME).read_bytes() == CONTENT
    whole = [cut // CHUNK * CHUNK for cut in cuts]  # an unfinished chunk is asked for again
    assert starts == [0, *np.cumsum(whole)[: len(starts) - 1].tolist()]


def test_a_run_that_gave_up_leaves_what_came_to_the_next(server, tmp_path):
    server.cuts = [GIVE_UP_AT, *[0] * (ATTEMPTS - 1)]
    with pytest.raises(
        UserError, match=f"cannot be fetched .*run again .*put the file at .*{NAME}"
    ):
        get(server, tmp_path)
    assert left(tmp_path) == {f"{NAME}.part", f"{NAME}.part.json"}
    server.requests.clear()
    get(server, tmp_path)
    assert server.requests == [(NAME, GIVE_UP_AT)]
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_run_killed_after_the_last_byte_asks_for_none(server, tmp_path):
    server.cuts = [GIVE_UP_AT, *[0] * (ATTEMPTS - 1)]
    with pytest.raises(UserError):
        get(server, tmp_path)
    with (tmp_path / f"{NAME}.part").open("ab") as part:
        part.write(CONTENT[GIVE_UP_AT:])
    server.requests.clear()
    assert get(server, tmp_path)["sha256"] == SUM
    assert server.requests == []


@pytest.mark.parametrize("size", [1_000_000, 20_000, 2_000_000])
def test_another_version_on_the_server_is_never_mixed_in(server, tmp_path, size):
    server.cuts = [GIVE_UP_AT, *[0] * (ATTEMPTS - 1)]
    with pytest.raises(UserError):
        get(server, tmp_path)
    server.files[NAME], server.versions[NAME] = archive(size, seed=1), "2"
    get(server, tmp_path)
    assert (tmp_path / NAME).read_bytes() == server.files[NAME]


def test_a_server_that_cannot_resume_sends_all_again(server, tmp_path):
    server.resumes, server.cuts = False, [GIVE_UP_AT]
    assert get(server, tmp_path)["sha256"] == SUM
    assert len(server.requests) == 2


def test_a_wrong_sum_is_refused_and_nothing_kept(server, tmp_path):
    with pytest.raises(UserError, match=f"{NAME}: .*expected sha256:{'0' * 64} but got {SUM}"):
        get(server, tmp_path, sha256="0" * 64)
    assert left(tmp_path) == set()


def test_a_run_killed_while_the_sum_is_checked_leaves_all_to_the_next(
    server, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            get(server, tmp_path, sha256=SUM)
    assert left(tmp_path) == {f"{NAME}.part", f"{NAME}.part.json"}
    server.requests.clear()
    assert get(server, tmp_path, sha256=SUM)["sha256"] == SUM
    assert server.requests == []
    assert left(tmp_path) == {NAME, f"{NAME}.sha256"}


@pytest.mark.parametrize("record", [b"", b"\xff\xfe", b"0" * 63, b"0" * 65])
def test_a_record_that_is_no_sum_is_refused_until_one_is_given(server, tmp_path, record):
    (tmp_path / f"{NAME}.sha256").write_bytes(record)
    with pytest.raises(UserError, match=rf"{NAME}\.sha256: begins with no SHA-256 sum"):
        get(server, tmp_path)
    get(server, tmp_path, sha256=SUM)
    assert get(server, tmp_path)["sha256"] == SUM


def test_a_sum_that_was_given_and_holds_replaces_the_recorded_one(server, tmp_path):
    (tmp_path / f"{NAME}.sha256").write_text(f"{'0' * 64}  {NAME}\n")
    get(server, tmp_path, sha256=SUM)
    assert get(server, tmp_path)["sha256"] == SUM


def test_what_was_recorded_once_must_come_again(server, tmp_path):
    get(server, tmp_path)
    (tmp_path / NAME).unlink()
    server.files[NAME], server.versions[NAME] = archive(seed=1), "2"
    with pytest.raises(UserError, match=f"expected sha256:{SUM} but got"):
        get(server, tmp_path)
    assert left(tmp_path) == {f"{NAME}.sha256"}


def test_a_file_that_was_damaged_is_fetched_again(server, tmp_path):
    get(server, tmp_path)
    (tmp_path / NAME).write_bytes(CONTENT[:1000] + b"?" + CONTENT[1001:])
    get(server, tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_page_in_place_of_the_archive_is_refused_and_not_kept(server, tmp_path):
    server.files[NAME] = b"<html>sorry</html>"
    with pytest.raises(UserError, match=f"{NAME}: what came is not a zip archive"):
        get(server, tmp_path)
    assert not (tmp_path / NAME).exists() and not (tmp_path / f"{NAME}.part").exists()


@pytest.mark.parametrize(
    ("status", "asked", "reason"), [(404, 1, "404 Not Found"), (503, ATTEMPTS, "503 Service")]
)
def test_what_the_server_refuses_is_said(server, tmp_path, status, asked, reason):
    server.status = status
    with pytest.raises(UserError, match=f"{NAME}: cannot be fetched \\({reason}"):
        get(server, tmp_path)
    assert len(server.requests) == asked


def test_no_server_at_all_is_said(tmp_path):
    with serving({}) as gone:
        pass
    with pytest.raises(UserError, match=r"cannot be fetched \(.*refused"):
        fetch(NAME, tmp_path, url=gone.url, wait=0.01)


def test_a_disk_too_small_is_said_before_it_is_full(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(UserError, match=r"0\.0 GB more are needed on this disk"):
        get(server, tmp_path)
    assert not (tmp_path / NAME).exists()


def test_two_runs_do_not_write_into_one_download(server, tmp_path):
    with (tmp_path / f"{NAME}.part").open("ab") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run is fetching it"):
            get(server, tmp_path)
