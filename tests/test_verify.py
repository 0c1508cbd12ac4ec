"""Verification: every damaged shard is named, and only the records that do not hold are removed."""

import errno
import json
import os
import shutil
from itertools import product

import numpy as np
import pytest

from teramind.__main__ import main
from teramind.errors import UserError
from teramind.files import digest, write_json
from teramind.volume import VolumeLayout, build_pyramid, create_volume, write_slab
from teramind.volume.metadata import read_metadata
from teramind.volume.verify import require_section, verify

SLAB = 128
SIZE = 640
"""Pixels: 5 x 5 slabs, two levels."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A results folder with a volume of noise, its left half background, and all records."""
    results = tmp_path_factory.mktemp("whole")
    folder = results / "volume"
    volume = folder / "volume.zarr"
    create_volume(
        volume,
        VolumeLayout(
            shape=(2, 2, SIZE, SIZE),
            slab=SLAB,
            pixel_size_um=0.5,
            section_spacing_um=10,
            stains=("DAPI", "PolyT"),
            attributes={},
        ),
    )
    write_json(folder / "layout.json", {"metadata": read_metadata(volume, root=volume)})
    draw(folder)
    return results


def draw(folder):
    """What a run does: the slabs and pyramids that have no record."""
    volume = folder / "volume.zarr"
    for row, col in product(range(5), range(5)):
        name = f"w00_r{row:02d}_c{col:02d}"
        if not (receipt := folder / f"receipts/{name}.json").exists():
            rng = np.random.default_rng([row, col])
            voxels = rng.integers(0, 255, (2, 2, SLAB, SLAB), np.uint8) * np.uint8(col > 1)
            shards = write_slab(volume, voxels=voxels, z=0, y=row * SLAB, x=col * SLAB)
            write_json(receipt, {"slab": name, "shards": shards})
    for z in range(2):
        if not (record := folder / f"pyramid/{z:03d}.json").exists():
            write_json(record, {"section": z, "shards": build_pyramid(volume, z=z)})


@pytest.fixture
def results(whole, tmp_path):
    """A copy of the whole, to be damaged."""
    return shutil.copytree(whole, tmp_path / "results")


def flip(path, place=0.5):
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)


def faults(results, **options):
    """The lines of a verification that fails."""
    with pytest.raises(UserError) as error:
        verify(results, repair=False, threads=2, **options)
    return str(error.value).splitlines()


def snapshot(results):
    return {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}


def test_what_is_whole_passes(results):
    line = verify(results, repair=True, threads=2)
    assert line == f"{results}: 200 shards of 27 records are as they were written"


def test_every_kind_of_damage_is_named_in_one_line(results):
    volume = results / "volume/volume.zarr"
    (volume / "0/c/0/0/1/2").unlink()
    with (volume / "0/c/1/1/3/4").open("r+b") as file:
        file.truncate(1000)
    flip(volume / "1/c/0/1/2/2")
    (volume / "0/c/0/0/0").mkdir(exist_ok=True)
    (volume / "0/c/0/0/0/0").write_bytes(b"there should be nothing")
    before = snapshot(results)
    *lines, summary = faults(results)
    assert len(lines) == 4
    assert any(line.startswith(f"{volume}/0/c/0/0/1/2 is missing") for line in lines)
    assert any(line.startswith(f"{volume}/0/c/1/1/3/4 differs: 1000 bytes") for line in lines)
    assert any(line.startswith(f"{volume}/1/c/0/1/2/2 differs") for line in lines)
    assert any(line.startswith(f"{volume}/0/c/0/0/0/0 should be absent") for line in lines)
    assert summary.startswith("4 of 27 records do not hold: ")
    assert snapshot(results) == before


def test_a_shard_that_cannot_be_read_is_named_beside_the_others(results, monkeypatch):
    volume = results / "volume/volume.zarr"
    (volume / "0/c/0/0/1/2").unlink()
    (volume / "0/c/0/0/1/3").unlink()
    (volume / "0/c/0/0/1/3").mkdir()
    ill = volume / "1/c/0/1/2/2"

    def read(path):
        if path == ill:
            raise OSError(errno.EIO, os.strerror(errno.EIO))  # as a disk does, without a name
        return digest(path)

    monkeypatch.setattr("teramind.volume.shards.digest", read)
    *lines, _ = faults(results)
    assert sorted(line.removeprefix(f"{volume}/") for line in lines) == [
        "0/c/0/0/1/2 is missing",
        "0/c/0/0/1/3 cannot be read: Is a directory",
        "1/c/0/1/2/2 cannot be read: Input/output error",
    ]
    with pytest.raises(UserError, match="3 of 27 records do not hold: removed"):
        verify(results, repair=True, threads=2)


def test_any_flipped_bit_of_any_shard_is_found(results):
    rng = np.random.default_rng(3)
    shards = sorted(p for p in results.glob("volume/volume.zarr/*/c/**/*") if p.is_file())
    for shard in rng.choice(shards, 20):
        content = shard.read_bytes()
        flip(shard, rng.random())
        assert faults(results)[0].startswith(f"{shard} differs")
        shard.write_bytes(content)
    verify(results, repair=False, threads=1)


@pytest.mark.parametrize("name", ["zarr.json", "0/zarr.json", "1/zarr.json"])
@pytest.mark.parametrize("content", [None, "{}", "\xff"])
def test_metadata_are_compared_and_written_as_they_were(results, name, content):
    path = results / "volume/volume.zarr" / name
    whole = snapshot(results)
    path.unlink() if content is None else path.write_bytes(content.encode("latin1"))
    assert faults(results)[0] == f"{path}: differs from what was written, or is missing"
    with pytest.raises(UserError, match="1 metadata files: written as they were"):
        verify(results, repair=True, threads=1)
    assert snapshot(results) == whole
    assert "are as they were written" in verify(results, repair=False, threads=1)


def test_a_volume_that_is_gone_is_drawn_again_after_the_repair(results):
    whole = snapshot(results)
    shutil.rmtree(results / "volume/volume.zarr")
    with pytest.raises(UserError, match="3 metadata files: written as they were"):
        verify(results, repair=True, threads=2)
    draw(results / "volume")
    assert snapshot(results) == whole


def test_metadata_are_compared_before_there_is_any_record(results):
    for folder in ("receipts", "pyramid", "volume.zarr"):
        shutil.rmtree(results / "volume" / folder)
    with pytest.raises(UserError, match="3 metadata files: written as they were"):
        verify(results, repair=True, threads=1)
    assert faults(results)[0].startswith(f"{results}: no record of any shard")


def test_repair_removes_the_records_that_do_not_hold_and_no_other(results):
    volume = results / "volume/volume.zarr"
    flip(volume / "0/c/0/0/1/2")
    flip(volume / "0/c/1/0/1/2")
    flip(volume / "1/c/0/1/2/2")
    before = snapshot(results)
    with pytest.raises(UserError, match="2 of 27 records do not hold: removed"):
        verify(results, repair=True, threads=2)
    gone = {str(path.relative_to(results / "volume")) for path in before.keys() - snapshot(results)}
    assert gone == {"receipts/w00_r01_c02.json", "pyramid/001.json"}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "damaged"),
        ('{"slab": "w00_r00_c00", "sha', "damaged"),
        ('{"slab": "w00_r00_c00"}', "damaged"),
        ('{"slab": "w00_r00_c00", "shards": [{"path": "zarr.json"}]}', "damaged"),
        ('{"slab": "w00_r00_c00", "shards": [{"path": "../../c/0/0/0/0"}]}', "damaged"),
        ('{"slab": "w00_r00_c00", "shards": [{"path": "0/c/0/0/0/0", "bytes": 1}]}', "damaged"),
        ('{"slab": "w00_r00_c01", "shards": []}', "holds the record of w00_r00_c01"),
    ],
    ids=[
        "empty",
        "truncated",
        "no shards",
        "strange shard",
        "shard outside",
        "no digest",
        "another slab's",
    ],
)
def test_a_faulty_record_is_a_fault(results, content, line):
    path = results / "volume/receipts/w00_r00_c00.json"
    path.write_text(content)
    assert faults(results)[0].startswith(f"{path}: {line}")


def test_a_pyramid_is_not_built_from_damaged_shards(results):
    volume, receipts = results / "volume/volume.zarr", results / "volume/receipts"
    flip(volume / "0/c/1/1/3/4")
    require_section(volume, receipts.iterdir(), z=0)
    with pytest.raises(UserError, match=r"0/c/1/1/3/4 differs.*; remove .*w00_r03_c04.json and"):
        require_section(volume, receipts.iterdir(), z=1)


def test_the_command_ends_with_a_status(results, capsys):
    assert main(["verify", str(results)]) == 0
    assert "200 shards of 27 records" in capsys.readouterr().out
    record = json.loads((results / "volume/pyramid/000.json").read_text())
    (results / "volume/volume.zarr" / record["shards"][-1]["path"]).unlink()
    assert main(["verify", "--repair", str(results)]) == 1
    assert capsys.readouterr().err.count("error: ") == 2
    assert not (results / "volume/pyramid/000.json").exists()


def test_a_volume_without_records_does_not_pass(results):
    for record in [*results.glob("volume/receipts/*"), *results.glob("volume/pyramid/*")]:
        record.unlink()
    assert faults(results)[0].startswith(f"{results}: no record of any shard")


def test_a_folder_without_a_volume_is_refused(tmp_path):
    with pytest.raises(UserError, match="no record of a volume here; name a results folder"):
        verify(tmp_path, repair=True, threads=1)
