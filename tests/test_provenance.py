"""The record of a run stays true of the volume when settings, inputs and program go on."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from workflow_project import config_with

from teramind.config import parse_config
from teramind.files import digest
from teramind.run.provenance import git_revision, outdated, update_provenance, write_provenance


def commit(project):
    """A new revision of a project; its name."""
    name = ["-c", "user.name=A", "-c", "user.email=a@b"]
    git = ["git", "-C", str(project), *name, "commit", "--quiet", "--allow-empty", "-m", "step"]
    subprocess.run(git, check=True)
    return git_revision(project)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A results folder with a raster and the record of its run; config, record, project."""
    monkeypatch.chdir(tmp_path)
    project = tmp_path / "project"
    subprocess.run(["git", "init", "--quiet", str(project)], check=True)
    commit(project)
    for name in ("molecules.csv", "network.safetensors"):
        (tmp_path / name).write_text(name)
    config = parse_config(config_with())
    record = tmp_path / "out/provenance.json"
    write_provenance(config, record, project=project)
    (tmp_path / "out/expression").mkdir()
    (tmp_path / "out/expression/panel.tsv").touch()
    return config, record, project


def test_a_changed_title_forgets_neither_a_source_that_is_gone_nor_the_first_program(run):
    _, record, project = run
    first = json.loads(record.read_text())
    Path("molecules.csv").unlink()
    later = commit(project)
    mended = parse_config(config_with(title="Mended"))
    update_provenance(mended, record, project=project)
    now = json.loads(record.read_text())
    assert now["config"]["title"] == "Mended"
    assert now["later"] == [{"versions": first["versions"], "revision": later}]
    for part in ("inputs", "versions", "revision", "machine"):
        assert now[part] == first[part]


def test_every_program_that_went_on_is_recorded_once(run, monkeypatch):
    config, record, project = run
    update_provenance(config, record, project=project)
    assert "later" not in json.loads(record.read_text())
    assert not outdated(config, record, project=project)
    found = []
    for _ in range(2):
        found.append(commit(project))
        assert outdated(config, record, project=project)
        update_provenance(config, record, project=project)
        update_provenance(config, record, project=project)
        assert not outdated(config, record, project=project)
        later = json.loads(record.read_text())["later"]
        assert [program["revision"] for program in later] == found
    monkeypatch.setattr("teramind.run.provenance.__version__", "99")
    update_provenance(config, record, project=project)
    assert json.loads(record.read_text())["later"][-1]["versions"]["teramind"] == "99"


def test_as_long_as_nothing_is_made_the_record_is_of_the_run_that_begins(run):
    config, record, project = run
    Path("out/expression/panel.tsv").unlink()
    Path("molecules.csv").unlink()
    later = commit(project)
    update_provenance(config, record, project=project)
    now = json.loads(record.read_text())
    assert now["revision"] == later
    assert "later" not in now


def test_an_input_that_changed_has_its_new_checksum_and_one_no_longer_named_none(run):
    _, record, project = run
    with Path("molecules.csv").open("a") as file:
        file.write("more")
    os.utime("molecules.csv", ns=(record.stat().st_mtime_ns + 1,) * 2)
    other = parse_config(config_with(network__checkpoint="other.safetensors"))
    assert outdated(other, record, project=project)
    update_provenance(other, record, project=project)
    assert json.loads(record.read_text())["inputs"] == {"molecules.csv": digest("molecules.csv")}
