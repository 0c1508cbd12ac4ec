"""States and shards damaged behind Snakemake's back: found, named, and only they are made again."""

import os
import shutil

import pytest
from small_project import SLIDE, TARGETS
from workflow_project import planned

LEFT, RIGHT = "w00_r00_c00", "w00_r00_c01"


def flip(path):
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def swap(path):
    shutil.copyfile(path.with_name(f"{RIGHT}.safetensors"), path)


def unseen(change, path):
    """Change a file but not its time."""
    times = path.stat()
    change(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        pytest.param(flip, "damaged (checksum differs)", marks=pytest.mark.faults),
        pytest.param(truncate, "damaged", marks=pytest.mark.faults),
        pytest.param(swap, f"belongs to slab {RIGHT}, not {LEFT}", marks=pytest.mark.faults),
    ],
)
def test_a_damaged_state_is_named_by_its_reader(undisturbed, same_volume, tmp_path, change, line):
    project = undisturbed.before("stitch", tmp_path / "project")
    state = project.results / f"work/p001/{LEFT}.safetensors"
    unseen(change, state)
    found = project.fail("--notemp", "--cores", "1", SLIDE)
    assert found.startswith(f"error: state out/work/p001/{LEFT}.safetensors: {line}")
    assert "remove it and run again" in found
    state.unlink()
    same_volume(project)


@pytest.mark.faults
@pytest.mark.parametrize("change", [os.unlink, flip, truncate])
def test_a_damaged_shard_is_found_and_its_slab_made_again(
    undisturbed, same_volume, tmp_path, change
):
    project = undisturbed.copy(tmp_path / "project")
    change(project.results / "volume/volume.zarr/0/c/1/0/0/1")
    status, printed = project.attempt("--retries", "1", "verify")  # as the profile of Slurm
    assert status != 0
    assert "error: out/volume/volume.zarr/0/c/1/0/0/1 " in printed
    again = planned(project.run("--notemp", "-n", *TARGETS))
    assert again == {"stitch": 1, "pyramid": 1, "export_wsi": 1}
    same_volume(project)


@pytest.mark.faults
def test_one_slab_again_is_one_command(undisturbed, tmp_path):
    project = undisturbed.copy(tmp_path / "project")
    shutil.rmtree(project.results / "work")
    printed = project.run("--force", f"out/volume/receipts/{RIGHT}.json")
    assert planned(printed) == {"generate_p000": 2, "generate_p001": 1, "stitch": 1}
    assert project.volume() == undisturbed.volume()
    assert "Nothing to be done" in project.run(SLIDE)
