"""The workflow from made-up tissue to a network, a volume drawn by it, and their evaluation."""

import json
import signal
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import zarr
from workflow_project import Project, planned

from teramind.network import load_network
from teramind.phantom import PANEL as PHANTOM_PANEL

TRAINING = {
    "phantom": {"height": 128, "width": 192, "seed": 3},
    "expression": {
        "kind": "molecules",
        "source": "out/phantom/molecules.parquet",
        "panel": "panel.txt",
        "gene": "gene",
        "x": "x_um",
        "y": "y_um",
        "section": "section",
    },
    "reference": {
        "images": "out/phantom/images.ome.tif",
        "holdout": [0, 128, 128, 64],
        "white": {"PolyT": 200},
    },
    "network__checkpoint": "train",
    "plane__pixel_size_um": 0.6,
    "train": {
        "base": 6,
        "embed": 16,
        "steps": 8,
        "batch": 1,
        "window": 2,
        "save_minutes": 0.001,
        "threads": 1,
        "licence": "CC0-1.0",
    },
    "generate": {"slab": 64, "steps": 2, "phases": 1},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project that made its tissue, learned from it and was judged."""
    project = Project(tmp_path_factory.mktemp("trained"), **TRAINING)
    (project.folder / "panel.txt").write_text("\n".join(PHANTOM_PANEL) + "\n")
    project.printed = project.run()
    return project


def test_the_checkpoint_says_what_it_learned_from(trained):
    spec = load_network(trained.results / "train/checkpoint.safetensors").spec
    assert spec.panel == PHANTOM_PANEL
    assert (spec.base, spec.embed, spec.genes) == (6, 16, len(PHANTOM_PANEL))
    assert spec.licence == "CC0-1.0"
    assert spec.training["settings"]["steps"] == 8
    losses = pd.read_csv(trained.results / "train/loss.csv")
    assert losses["step"].tolist() == list(range(8)) and np.isfinite(losses["loss"]).all()


def test_dim_images_are_brightened_before_anything_sees_them(trained):
    images = zarr.open_array(trained.results / "reference/images.zarr", mode="r")[:]
    assert images.shape == (2, 2, 128, 192)
    project = trained.values["plane"]
    assert project["pixel_size_um"] == 0.6
    dapi, polyt = images
    assert polyt.max() == 255 > polyt.mean() > dapi.mean()


def test_every_measure_is_there_on_the_holdout_and_the_whole(trained):
    measures = pd.read_csv(trained.results / "evaluation.csv")
    assert set(measures["area"]) == {"holdout", "whole"}
    assert set(measures["stain"]) == {"DAPI", "PolyT"}
    assert {"correlation", "wasserstein", "nuclei_f1", "patch_border_ratio"} <= set(
        measures["measure"]
    )
    summary = json.loads((trained.results / "evaluation.json").read_text())
    assert summary["holdout"] == [0, 128, 128, 64]
    report = (trained.results / "report.html").read_text()
    assert "Agreement with real images" in report and "Nuclei" in report


def test_nothing_is_left_to_do(trained):
    assert not planned(trained.run("-n"))


def test_a_training_that_was_killed_goes_on_to_the_same_weights(trained, tmp_path):
    project = Project(tmp_path, **TRAINING)
    (tmp_path / "panel.txt").write_text("\n".join(PHANTOM_PANEL) + "\n")
    process = project.start("--", "out/train/checkpoint.safetensors")
    state = project.results / "work/train/state.pt"
    while not state.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.send_signal(signal.SIGKILL)
    psutil.wait_procs(family)
    process.communicate()
    reached = torch.load(state, weights_only=True)["step"]
    project.run("--unlock")
    project.run("--rerun-incomplete", "--", "out/train/checkpoint.safetensors")
    again, whole = (
        load_network(p.results / "train/checkpoint.safetensors").state_dict()
        for p in (project, trained)
    )
    assert reached > 0
    for key, value in whole.items():
        torch.testing.assert_close(again[key], value, rtol=1e-5, atol=1e-6)
