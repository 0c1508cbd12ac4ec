"""Disks that are full, read-only, gone or late: one line names the file, the next run mends it."""

import os
import subprocess
from contextlib import contextmanager

import pytest
from small_project import SLIDE, end, nth_job, site
from workflow_project import Project


@contextmanager
def mounted(folder, *options):
    """A mount in the place of a folder; the test is skipped where none is allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"only root may mount a disk: {mount.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def disk_of(kilobytes):
    """Options of a mount of a small disk."""
    return "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs"


@pytest.mark.faults
@pytest.mark.parametrize(
    ("stage", "place", "kilobytes", "file"),
    [
        ("generate", "work", 40, "out/work/p00"),
        ("stitch", "volume/volume.zarr/0/c", 4, "out/volume/volume.zarr/0/c/"),
        ("export_wsi", "wsi", 8, SLIDE),
    ],
)
def test_a_full_disk_is_told_with_the_file(
    undisturbed, same_volume, tmp_path, stage, place, kilobytes, file
):
    project = undisturbed.before(stage, tmp_path / "project")
    with mounted(project.results / place, *disk_of(kilobytes)):
        # Snakemake removes folders that a failed job left empty, and cannot remove a mount.
        (project.results / place / "other").touch()
        line = project.fail("--notemp", "--cores", "1", SLIDE)
        assert line.startswith(f"error: {file}")
        assert "the disk is full" in line
    same_volume(project)


@pytest.mark.faults
def test_a_read_only_results_folder_is_refused_before_any_job(undisturbed, same_volume, tmp_path):
    project = undisturbed.before("export_wsi", tmp_path / "project")
    with mounted(project.results, "--bind", "-o", "ro", str(project.results)):
        assert project.fail(SLIDE) == "error: results: out cannot be written to"
    same_volume(project)


@pytest.mark.faults
def test_the_work_folder_removed_while_jobs_run(undisturbed, same_volume, tmp_path):
    project = undisturbed.before("generate", tmp_path / "project")
    process = project.begin()
    nth_job(process, "generate", 3)
    subprocess.run(["rm", "-rf", str(project.results / "work")], check=True)
    end(process)
    same_volume(project)


LATE = """
import os, pathlib, time
replace = pathlib.Path.replace
def later(self, target):
    if not (str(target).endswith(("safetensors", "tif")) or "receipts" in str(target)):
        return replace(self, target)
    if os.fork() == 0:
        for descriptor in range(3):
            os.close(descriptor)
        time.sleep(3)
        replace(self, target)
        os._exit(0)
pathlib.Path.replace = later
"""
"""Files take their names three seconds after the job that wrote them has ended."""


@pytest.mark.faults
def test_files_that_show_late_are_waited_for(undisturbed, same_volume, tmp_path, monkeypatch):
    project = undisturbed.before("generate", tmp_path / "project")
    monkeypatch.setenv("PYTHONPATH", site(tmp_path / "late", LATE))
    project.run("--notemp", "--latency-wait", "30", SLIDE)
    monkeypatch.undo()
    same_volume(project)


@pytest.mark.faults
def test_a_script_runs_the_code_of_its_checkout(tmp_path, monkeypatch):
    (tmp_path / "elsewhere/teramind").mkdir(parents=True)
    (tmp_path / "elsewhere/teramind/__init__.py").write_text("raise ImportError('the other one')")
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "elsewhere")]))
    project.run("--until", "provenance")
