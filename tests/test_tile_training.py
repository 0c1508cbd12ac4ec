"""A config names published training tiles; the mouse that is left out only validates."""

from argparse import Namespace
from pathlib import Path

import pandas as pd
import pytest
import torch
from training_tiles import NAMES, PLANES, two_mice
from workflow_project import Project, planned

from teramind.commands.train import run
from teramind.config import missing_files, parse_config
from teramind.errors import UserError
from teramind.network import NetworkSpec, load_network
from teramind.run.provenance import write_provenance
from teramind.training.launch import run_training
from teramind.training.material import open_material, sizes_digest
from teramind.training.recipe import train_from_config

PANEL = ("c", "a")


@pytest.fixture
def project(tmp_path):
    """A project that learns from the tiles of mouse 1, without mouse 2."""
    two_mice(tmp_path)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    (tmp_path / "panel.txt").write_text("\n".join(PANEL))
    return Project(
        tmp_path,
        expression={
            "kind": "tiles",
            "source": "gene_2",
            "panel": "panel.txt",
            "gene_names": "names.txt",
            "genes": len(NAMES),
        },
        plane__sections=PLANES,
        network__checkpoint="train",
        train={
            "tiles": {"folder": ".", "lists": ["1.csv", "2.csv"], "leave_out": "2"},
            "base": 2,
            "embed": 8,
            "steps": 3,
            "window": 2,
            "threads": 1,
        },
    )


def test_a_network_is_learned_from_the_tiles(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    assert train_from_config(project.config)
    spec = load_network(project.results / "train/checkpoint.safetensors").spec
    assert spec.panel == PANEL
    losses, validation = (
        pd.read_csv(project.results / f"train/{name}.csv") for name in ("loss", "validation")
    )
    assert losses["step"].tolist() == [0, 1, 2]
    assert validation["step"].tolist() == [3]


def test_training_says_where_it_runs(project, monkeypatch, capsys):
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    train = project.values["train"] | {"gpus": 1, "steps": 1}
    train_from_config(parse_config(project.values | {"train": train}))
    said = capsys.readouterr().out
    assert said.startswith("training: on the CPU, ")
    assert "train.gpus asks for 1 GPU, torch sees 0" in said


def test_training_in_bfloat16_is_refused_where_it_would_be_slower(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr("teramind.network.device.has_bfloat16", lambda: False)
    train = project.values["train"] | {"precision": "bfloat16"}
    with pytest.raises(UserError, match=r"^train\.precision: bfloat16, but this CPU has no"):
        train_from_config(parse_config(project.values | {"train": train}))


def test_a_panel_that_is_the_beginning_of_the_tiles_genes_needs_no_other_list(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    (project.folder / "panel.txt").write_text("\n".join(NAMES[:2]))
    found = []
    for names in ("names.txt", None):
        expression = project.values["expression"] | {"gene_names": names}
        config = parse_config(project.values | {"expression": expression})
        material = open_material(config)
        spec = NetworkSpec(32, 4, ("DAPI", "PolyT"), 2, base=2, embed=8, panel=material.panel)
        found.append(material.windows(spec)(0).counts)
    assert torch.equal(*found) and found[0].any()


def test_every_tile_tells_the_data_from_others(project, monkeypatch):
    """A training that goes on would else notice only a change of the tiles that it cuts first."""
    monkeypatch.chdir(project.folder)

    def found():
        return sizes_digest(open_material(project.config).paths)

    digests = [found()]
    for tile in Path().glob("*_[12]/*"):
        tile.write_bytes(tile.read_bytes() + b" ")
        digests.append(found())
    assert len(set(digests)) == len(digests) == 1 + 8


def test_training_by_hand_refuses_a_folder_that_belongs_to_other_settings(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    write_provenance(project.config, project.results / "provenance.json", project=project.folder)
    (project.results / "train").mkdir()
    (project.results / "train/loss.csv").touch()
    project.configure(**project.values | {"train__ema": 0.5})
    with pytest.raises(UserError, match=r"out: made with other settings \(train\.ema was 0\.999"):
        run(Namespace(configfile=project.folder / "config.yaml"))


def test_processes_have_minutes_to_save_when_they_are_asked_to_end(project, monkeypatch):
    """A step on CPUs or a large state takes longer than the 30 seconds that torchrun grants."""
    train_in_two_processes(project, monkeypatch, 'echo "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT" > granted')
    assert int((project.folder / "granted").read_text()) >= 120


def test_all_that_processes_find_wrong_is_said_once(project, monkeypatch):
    said = "echo error: one; echo error: other; echo error: one"
    with pytest.raises(UserError) as error:
        train_in_two_processes(project, monkeypatch, f"({said}) > log; exit 1")
    assert str(error.value).splitlines() == ["one", "other"]


def train_in_two_processes(project, monkeypatch, script):
    """Train with a shell script in the place of torchrun."""
    monkeypatch.chdir(project.folder)
    python = project.folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    project.configure(**project.values | {"train__gpus": 2, "train__batch": 2})
    run_training(project.config, project.values, threads=1, log=project.folder / "log")


def test_the_other_mouse_changes_nothing_that_is_learned(project, monkeypatch):
    """Its tiles are drawn from for validation alone."""
    monkeypatch.chdir(project.folder)
    values = project.values
    train_from_config(parse_config(values))
    tiles = values["train"]["tiles"] | {"lists": ["1.csv"], "leave_out": None}
    alone = values | {"results": "alone", "train": values["train"] | {"tiles": tiles}}
    train_from_config(parse_config(alone))
    both, one = (pd.read_csv(f"{results}/train/loss.csv") for results in ("out", "alone"))
    assert both["loss"].tolist() == one["loss"].tolist()
    assert not (project.folder / "alone/train/validation.csv").exists()


def test_training_waits_for_no_images_of_the_plane(project):
    jobs = planned(project.run("--dry-run"))
    assert jobs["train"] == 1
    assert "resample_images" not in jobs and "split" not in jobs


@pytest.mark.parametrize(
    ("tiles", "line"),
    [
        (
            {"leave_out": "3"},
            "train.tiles.leave_out: got '3'; must be among the lists' mice ['1', '2']",
        ),
        ({"lists": ["2.csv"]}, "training: no tiles left to train on"),
    ],
)
def test_tiles_that_cannot_be_learned_from_are_refused(project, monkeypatch, tiles, line):
    monkeypatch.chdir(project.folder)
    train = project.values["train"]
    asked = project.values | {"train": train | {"tiles": train["tiles"] | tiles}}
    with pytest.raises(UserError) as refused:
        train_from_config(parse_config(asked))
    assert str(refused.value) == line


def test_lists_that_are_not_there_are_named_before_any_job(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    (project.folder / "2.csv").unlink()
    assert "train.tiles.lists.1: no such file: 2.csv" in missing_files(project.config)
