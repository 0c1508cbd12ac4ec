"""A user's mistake ends the workflow in one clear line and leaves nothing half-written."""

import os
import subprocess

import anndata
import numpy as np
import pandas as pd
import pytest
from workflow_project import PANEL, Project, molecules, write_network

BIN = ("--until", "bin_expression")


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def write_table(project, **changes):
    """The molecules with some columns changed."""
    molecules().assign(**changes).to_csv(project.folder / "molecules.csv", index=False)


def no_raster(project):
    return not list(project.results.glob("expression/*"))


@pytest.mark.parametrize(
    ("file", "key"),
    [("molecules.csv", "expression.source"), ("network.safetensors", "network.checkpoint")],
)
def test_a_missing_file_is_named_before_any_job_runs(project, file, key):
    (project.folder / file).unlink()
    assert project.fail() == f"error: {key}: no such file: {file}"
    assert not project.results.exists()


def test_a_plan_needs_no_data(project):
    (project.folder / "molecules.csv").unlink()
    project.run("plan")
    assert "all of the region is taken for tissue" in (project.results / "plan.txt").read_text()


def test_every_wrong_key_gets_its_line(project):
    project.configure(generate__slab="big", colour="red")
    status, printed = project.attempt("-n")
    assert status != 0
    assert [line for line in printed.splitlines() if line.startswith("error: ")] == [
        "error: generate.slab: got 'big'; must be a whole number",
        "error: colour: no such key",
    ]
    assert "Traceback" not in printed


def no_columns(project):
    molecules().rename(columns={"x": "a"}).to_csv(project.folder / "molecules.csv", index=False)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (
            lambda project: (project.folder / "molecules.csv").write_text(""),
            "molecules.csv: the file is empty",
        ),
        (no_columns, "molecules.csv: columns missing: x; present: gene, a, y, section"),
        (lambda project: write_table(project, x=np.nan), "rows hold no finite coordinates"),
        (
            lambda project: write_table(project, section="left"),
            "column section: values without a section: 'left'",
        ),
        (lambda project: write_table(project, gene="Actb"), "0 of 3 panel genes found"),
    ],
    ids=["empty file", "no such columns", "NaN coordinates", "unknown sections", "other genes"],
)
def test_a_faulty_table_is_refused(project, spoil, line):
    spoil(project)
    assert line in project.fail(*BIN)
    assert no_raster(project)


def test_negative_counts_of_cells_are_refused(tmp_path):
    cells = anndata.AnnData(
        np.array([[1, 2, 0], [0, -1, 3]], np.float32),
        var=pd.DataFrame(index=list(PANEL)),
        obsm={"spatial": np.array([[10.0, 10.0], [20.0, 20.0]])},
    )
    cells.write_h5ad(tmp_path / "cells.h5ad")
    expression = {"kind": "cells", "source": "cells.h5ad"}
    project = Project(tmp_path, expression=expression, plane__sections=1)
    assert "X, cell 1: holds -1: counts must be whole numbers from 0" in project.fail(*BIN)
    assert no_raster(project)


def test_a_truncated_checkpoint_is_refused(project):
    path = project.folder / "network.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "network.safetensors: truncated" in project.fail(*BIN)


@pytest.mark.parametrize(
    ("changes", "spec", "line"),
    [
        ({"expression__panel": "panel.txt"}, {}, "gene 0 is Th, the network reads Gad1 there"),
        ({}, {"patch": 64}, "network.patch: 32, but the checkpoint network.safetensors has 64"),
    ],
    ids=["other panel", "other patch"],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, changes, spec, line):
    project = Project(tmp_path, generate__slab=192, generate__phases=1, **changes)
    (tmp_path / "panel.txt").write_text("\n".join(reversed(PANEL)))
    write_network(tmp_path / "network.safetensors", **spec)
    assert line in project.fail("--until", "generate_p000")
    assert not list(project.results.glob("work/*/*"))


def test_a_damaged_state_is_named_and_made_again(tmp_path):
    project = Project(tmp_path, generate__slab=192, generate__phases=2)
    project.run("--notemp", "--until", "generate_p000")
    (state,) = project.results.glob("work/p000/*")
    times, content = state.stat(), bytearray(state.read_bytes())
    content[-7] ^= 1
    state.write_bytes(content)
    os.utime(state, ns=(times.st_atime_ns, times.st_mtime_ns))
    line = project.fail("--until", "generate_p001")
    assert line.startswith("error: state out/work/p000/w00_r00_c00.safetensors: damaged")
    state.unlink()
    project.run("--until", "generate_p001")


@pytest.fixture
def small_disk(project):
    """A disk of 48 KB in the place of the folder of states."""
    folder = project.results / "work"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named_and_keeps_nothing_half_written(project, small_disk):
    line = project.fail("--until", "generate_p000", "--cores", "1")
    assert "the disk is full" in line
    assert not [path for path in small_disk.rglob("*") if path.is_file()]
