"""A user's mistake ends the workflow in one clear line and leaves nothing half-written."""

import os
import subprocess

import pytest
from small_project import site
from workflow_project import PANEL, Project, molecules, planned, write_network

from teramind.plan.assume import assume

BIN = ("--until", "bin_expression")


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.mark.parametrize(
    ("file", "key"),
    [("molecules.csv", "expression.source"), ("network.safetensors", "network.checkpoint")],
)
def test_a_missing_file_is_named_before_any_job_runs(project, file, key):
    (project.folder / file).unlink()
    assert project.fail() == f"error: {key}: no such file: {file}"
    assert not project.results.exists()


def test_a_missing_package_is_named_before_any_job_runs_unless_jobs_have_their_own(
    project, tmp_path, monkeypatch
):
    lacking = "import sys; sys.modules['cellpose'] = None"
    monkeypatch.setenv("PYTHONPATH", site(tmp_path / "site", lacking))
    (project.folder / "weights").touch()
    project.configure(evaluation__cellpose="weights")
    line = "evaluation.cellpose: needs Cellpose (pip install cellpose)"
    assert project.fail() == f"error: {line}"
    assert not project.results.exists()
    _, printed = project.attempt("-n", "--sdm", "conda")  # with or without a conda
    assert "Building DAG of jobs" in printed and line not in printed


def test_attention_that_is_not_configured_is_not_done(project):
    assert project.fail("attention_all") == (
        "error: attention: missing; attention_all makes what this section asks for"
    )


def test_a_slab_that_is_not_there_is_not_drawn_by_force(project):
    assert project.fail("--force", "out/volume/receipts/w00_r07_c02.json") == (
        "error: slab w00_r07_c02: there is none; the first is w00_r00_c00, the last w00_r01_c02"
    )


def test_a_damaged_record_of_a_download_is_named(project):
    archive = "gene_638850.zip"
    project.configure(
        expression={"kind": "tiles", "source": "published:638850"},
        download={"sha256": {archive: 64 * "0"}},
    )
    record = project.results / f"download/{archive}.json"
    record.parent.mkdir(parents=True)
    record.write_text("{")
    assert project.fail() == (
        f"error: out/download/{archive}.json: not readable; remove it to fetch {archive} again"
    )


def test_a_plan_needs_no_data(project, monkeypatch):
    (project.folder / "molecules.csv").unlink()
    assert planned(project.run("-n", "plan")) == {"plan": 1}
    monkeypatch.chdir(project.folder)
    _, notes = assume(project.config, hardware="h100", workers=1)
    assert "no expression raster yet: all of the region is taken for tissue" in notes


def test_every_wrong_key_gets_its_line(project):
    project.configure(generate__slab="big", colour="red")
    status, printed = project.attempt("-n")
    assert status != 0
    assert [line for line in printed.splitlines() if line.startswith("error: ")] == [
        "error: generate.slab: got 'big'; must be a whole number",
        "error: colour: no such key",
    ]
    assert "Traceback" not in printed


def test_a_table_of_other_genes_is_refused(project):
    molecules().assign(gene="Actb").to_csv(project.folder / "molecules.csv", index=False)
    assert "0 of 3 panel genes found" in project.fail(*BIN)
    assert not list(project.results.glob("expression/*"))


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
    again = planned(project.run("-n", "--until", "generate_p001"))
    assert again == {"generate_p000": 1, "generate_p001": 1}


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
