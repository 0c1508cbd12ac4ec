"""The workflow from made-up tissue to a network, a volume drawn by it, and their evaluation."""

import json
import shutil
import time

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
import zarr
from small_project import kill
from workflow_project import Project, config_with, planned

from teramind.config import parse_config
from teramind.errors import UserError
from teramind.network import load_network
from teramind.phantom import PANEL as PHANTOM_PANEL
from teramind.training.recipe import train_from_config
from teramind.training.resume import saved_states

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
        "save_minutes": 60,
        "threads": 1,
        "licence": "CC0-1.0",
    },
    "generate": {"slab": 128, "steps": 2, "phases": 1},
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
    dapi, polyt = tifffile.imread(trained.results / "phantom/images.ome.tif")
    np.testing.assert_array_equal(images[0], dapi)
    brighter = (255 * polyt.astype(int) + 100) // 200  # rounded half up
    np.testing.assert_array_equal(images[1], np.minimum(brighter, 255))


MEASURES = {
    *("correlation", "grey_mean", "grey_deviation", "wasserstein", "log10_power_ratio"),
    *("patch_border_ratio", "slab_border_ratio"),
}
NUCLEI = {f"nuclei_{name}" for name in ("per_mm2", "diameter_um", "grey", "nearest_um", "f1")}
"""Of the stain that shows them."""


def test_every_measure_is_there_on_the_holdout_and_the_whole(trained):
    measures = pd.read_csv(trained.results / "evaluation.csv")
    found = {key: set(rows) for key, rows in measures.groupby(["stain", "area"])["measure"]}
    assert found == {
        (stain, area): MEASURES | (NUCLEI if stain == "DAPI" else set())
        for stain in ("DAPI", "PolyT")
        for area in ("holdout", "whole")
    }
    summary = json.loads((trained.results / "evaluation.json").read_text())
    assert summary["holdout"] == [0, 128, 128, 64]
    report = (trained.results / "report.html").read_text()
    assert "Agreement with real images" in report and "Nuclei" in report


def test_nothing_is_left_to_do(trained):
    assert not planned(trained.run("-n"))


def test_a_training_that_was_killed_goes_on_to_the_same_weights(trained, tmp_path):
    project = trained.copy(tmp_path / "copy")
    folder, made = project.results / "work/train", project.results / "train/checkpoint.safetensors"
    shutil.rmtree(folder)
    shutil.rmtree(made.parent)
    project.configure(**TRAINING | {"train": TRAINING["train"] | {"save_minutes": 0.01}})
    process = project.start("--", "out/train/checkpoint.safetensors")
    while not saved_states(folder):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    kill(process)
    assert not made.exists()
    reached = saved_states(folder)[-1]
    assert 0 < torch.load(reached, weights_only=True)["step"] < 8
    project.configure(**TRAINING)
    project.run("--unlock")
    project.run("--", "out/train/checkpoint.safetensors")
    assert reached in saved_states(folder)  # it outlived the job that saved it
    again, whole = (
        load_network(p.results / "train/checkpoint.safetensors").state_dict()
        for p in (project, trained)
    )
    for key, value in whole.items():
        torch.testing.assert_close(again[key], value, rtol=1e-5, atol=1e-6)


def test_two_processes_train_in_rounds_on_their_part_of_the_plane(tmp_path):
    changes = {
        "phantom": {"height": 256, "width": 320, "seed": 3},
        "plane__height": 256,
        "plane__width": 320,
        "reference": {
            "images": "out/phantom/images.ome.tif",
            "split": {"block": 64, "guard": 16, "validation": 0.1, "test": 0.2},
        },
        "train": TRAINING["train"]
        | {"steps": 2, "batch": 2, "gpus": 2, "rounds": 3, "minutes": 1e-9, "save_minutes": 60},
    }
    project = Project(tmp_path, **TRAINING | changes)
    (tmp_path / "panel.txt").write_text("\n".join(PHANTOM_PANEL) + "\n")
    printed = project.run("--", "out/train/checkpoint.safetensors")
    assert all(f"train_r{number:03d}" in printed for number in range(2))
    records = [json.loads(p.read_text()) for p in project.results.glob("work/train/round_*.json")]
    assert sorted(record["at"] for record in records) == ["step 1 of 2", "step 2 of 2"]
    folder = project.results / "train"
    assert pd.read_csv(folder / "validation.csv")["step"].tolist() == [1, 2]
    assert pd.read_csv(folder / "loss.csv")["step"].tolist() == [0, 1]
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")
    split = json.loads((project.results / "reference/split.json").read_text())
    assert split["test"] and split["validation"] and split["train"]
    assert load_network(folder / "checkpoint.safetensors").spec.training["settings"]["gpus"] == 2
    for rounds in (1, 9):  # how long the chain may be says nothing about a network that is there
        project.configure(**TRAINING | changes | {"train": changes["train"] | {"rounds": rounds}})
        assert not planned(project.run("-n", "--", "out/train/checkpoint.safetensors"))


def test_a_cluster_finds_the_rounds_that_are_left_when_training_ends_early(tmp_path):
    """Its jobs read the workflow anew: here after three of five rounds did all steps."""
    train = TRAINING["train"] | {"rounds": 5, "minutes": 60}
    project = Project(tmp_path, **TRAINING | {"train": train, "phantom": None})
    made = ["expression/raster.zarr", "reference/images.zarr", "reference/split.json"]
    made += ["train/checkpoint.safetensors", *(f"work/train/round_{k:03d}.json" for k in range(3))]
    for name in made:
        (project.results / name).parent.mkdir(parents=True, exist_ok=True)
        (project.results / name).touch()
    for path in (tmp_path / "panel.txt", tmp_path / "out/phantom/molecules.parquet"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name in ("train_r003", "train"):
        job = ["--mode", "remote", "--target-jobs", f"{name}:", "--allowed-rules", name]
        assert planned(project.run("-n", *job)) == {name: 1}


def test_a_round_that_is_over_too_early_says_how_to_go_on(trained, tmp_path):
    project = trained.copy(tmp_path / "copy")
    train = TRAINING["train"] | {"minutes": 1e-9}
    project.configure(**TRAINING | {"train": train})
    shutil.rmtree(project.results / "work/train")
    (project.results / "train/checkpoint.safetensors").unlink()
    line = project.fail("--", "out/train/checkpoint.safetensors")
    assert "its time is over at step 1 of 8; all is saved, the same command goes on" in line


@pytest.fixture(scope="module")
def judged(trained, tmp_path_factory):
    """One section, drawn by a network that was trained elsewhere, beside real images."""
    folder = tmp_path_factory.mktemp("judged")
    images = tifffile.imread(trained.results / "phantom/images.ome.tif")[:, :1]
    pixel = {"PhysicalSizeX": 0.6, "PhysicalSizeY": 0.6}
    names = {"axes": "CZYX", "Channel": {"Name": ["DAPI", "PolyT"]}}
    tifffile.imwrite(folder / "images.ome.tif", images, metadata=names | pixel)
    molecules = pd.read_parquet(trained.results / "phantom/molecules.parquet")
    molecules[molecules.section == 0].to_parquet(folder / "molecules.parquet")
    shutil.copy(trained.results / "train/checkpoint.safetensors", folder / "trained.safetensors")
    project = Project(folder, **JUDGED)
    project.run()
    return project


JUDGED = {
    "expression__source": "molecules.parquet",
    "expression__x": "x_um",
    "expression__y": "y_um",
    "expression__units": "um",
    "expression__outside": "skip",
    "reference__images": "images.ome.tif",
    "network__checkpoint": "trained.safetensors",
    "plane__sections": 1,
    "plane__pixel_size_um": 0.6,
    "generate": {"slab": 192, "steps": 2, "phases": 1},
}
"""The plane has one section of the two that the trained project made."""


def test_one_section_is_judged_without_a_neighbour(judged):
    measures = pd.read_csv(judged.results / "evaluation.csv")
    assert set(measures["subject"]) == {"generated", "real", "density", "regression"}
    assert "Agreement with real images" in (judged.results / "report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        (
            {"reference__holdout": [0, 0, 128, 64]},
            {"split", "fit_baseline", "evaluate_section", "evaluate", "report"},
        ),
        ({"evaluation__frechet": "efficientnet-lite0"}, {"evaluate", "report"}),
    ],
)
def test_other_questions_are_answered_anew(judged, tmp_path, changes, again):
    project = judged.copy(tmp_path)
    project.configure(**JUDGED | changes)
    printed = project.run("-n")
    assert set(planned(printed)) - {"all"} == again


def test_only_the_section_whose_measures_are_gone_is_measured_again(trained, tmp_path):
    project = trained.copy(tmp_path / "copy")
    table, parts = project.results / "evaluation.csv", project.results / "work/evaluation"
    before = table.read_bytes()
    table.unlink()
    (parts / "001.json").unlink()
    assert (parts / "000.json").exists()
    assert planned(project.run("--until", "evaluate"))["evaluate_section"] == 1
    assert table.read_bytes() == before


def test_images_of_another_size_are_refused_before_they_are_compared_with(trained, tmp_path):
    project = trained.copy(tmp_path / "copy")
    for made in ("provenance.json", "reference/split.json"):
        (project.results / made).unlink()
    ready = {"network__checkpoint": str(trained.results / "train/checkpoint.safetensors")}
    other = {"train": None, "phantom": None, "plane__width": 320}
    project.configure(**TRAINING | ready | other)
    line = project.fail("--until", "split")
    assert "128 x 192 pixels, but the plane ends at 128 x 320" in line


def test_a_plane_that_the_images_do_not_show_is_refused(trained, tmp_path):
    project = trained.copy(tmp_path / "copy")
    shutil.rmtree(project.results / "work/train")
    config = parse_config(config_with(**TRAINING | {"phantom": None, "plane__height": 256}))
    config = config.model_copy(update={"results": str(project.results)})
    with pytest.raises(UserError, match=r"128 x 192 pixels, but the plane ends at 256 x 192"):
        train_from_config(config)
    assert not (project.results / "work/train").exists()
