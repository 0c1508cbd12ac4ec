"""Files: whole or absent, and known by their digest."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from teramind.files import atomic_path, digest, remove_leftovers, write_json


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_takes_its_name_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "state.npy"
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"whole")
        assert not target.exists()
        assert temporary.parent == target.parent
        assert temporary.suffix == ".npy"
    assert target.read_bytes() == b"whole"
    assert names(target.parent) == {"state.npy"}


def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "state"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_bytes(b"ha")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == {"state"}


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "state"):
        pass
    assert names(tmp_path) == set()


def test_a_directory_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "raster"
    with atomic_path(target) as temporary:
        (temporary / "a").mkdir(parents=True)
        (temporary / "a" / "b").write_text("c")
        assert not target.exists()
    assert (target / "a" / "b").read_text() == "c"


def test_a_failed_directory_disappears(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "raster") as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("half")
        raise RuntimeError
    assert names(tmp_path) == set()


def test_two_writers_of_one_path_do_not_meet(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as first, atomic_path(tmp_path / "a") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a").read_text() == "first"


def test_the_content_is_flushed_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, flushed = tmp_path / "a", []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        flushed.append((os.fstat(descriptor).st_ino, target.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    with atomic_path(target) as temporary:
        temporary.write_text("a")
    assert flushed == [(target.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_an_error_of_writing_names_the_file(tmp_path: Path) -> None:
    target = tmp_path / "state"
    with pytest.raises(OSError, match=r"No space left.*state'") as error, atomic_path(target):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(target)
    with pytest.raises(FileNotFoundError) as absent, atomic_path(target) as temporary:
        temporary.read_bytes()
    assert absent.value.filename == str(target)
    with pytest.raises(FileNotFoundError) as other, atomic_path(target):
        (tmp_path / "elsewhere" / "a").read_bytes()
    assert other.value.filename == str(tmp_path / "elsewhere" / "a")


def test_leftovers_of_killed_writers_go_and_nothing_else(tmp_path: Path) -> None:
    kept = ["a.json", ".snakemake_timestamp", "b/2", "b/.hidden.json", "b/x.partial"]
    left = [".0a1b2c3d.a.json", f"b/2.{'0f' * 16}.partial", ".0a1b2c3d.raster.zarr/0/c"]
    for name in kept + left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert len(remove_leftovers(tmp_path)) == 3
    found = [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()]
    assert sorted(found) == sorted(kept)


def test_a_killed_writer_leaves_what_is_known_as_leftover(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        kept = temporary.rename(tmp_path / "kept")
        raise KeyboardInterrupt
    kept.rename(temporary)
    assert remove_leftovers(tmp_path) == [temporary]


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": {"µm": True}}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert list(json.loads(text)) == ["b", "a"]
    assert text.endswith("}\n")


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert names(tmp_path) == set()


def test_a_digest_is_that_of_the_content(tmp_path: Path) -> None:
    content = b"teramind" * 100_000
    (tmp_path / "a").write_bytes(content)
    wanted = hashlib.blake2b(content, digest_size=16).hexdigest()
    assert digest(content) == digest(tmp_path / "a") == digest(str(tmp_path / "a")) == wanted
    assert len(wanted) == 32
