"""The workflow from molecules to slides, run by the real Snakemake on a tiny brain."""

import json
import os
import random
import re
import shutil
import signal
import time
import weakref
from collections import Counter

import anndata
import numpy as np
import pandas as pd
import psutil
import pytest
import tifffile
import yaozarrs
from small_project import end, kill, nth_job, site
from workflow_project import (
    PANEL,
    ROOT,
    SIZE,
    Project,
    config_with,
    jobs_of,
    molecules,
    planned,
    write_network,
)

from teramind.config import parse_config
from teramind.engine.identity import run_digest, state_identity
from teramind.engine.region import generate_region
from teramind.engine.slab import generate_slab
from teramind.engine.state import SavedStates, save_states
from teramind.engine.stitch import stitch_slab
from teramind.errors import UserError
from teramind.expression.raster import Raster
from teramind.expression.raster_writer import RasterWriter
from teramind.expression.settings import reader_settings
from teramind.expression.source import to_pixels
from teramind.files import digest
from teramind.geometry import Rect, Slab
from teramind.network import load_network
from teramind.volume import create_volume, read_volume, verify_shards, volume_layout
from teramind.volume.planned import planned_volume

KEPT = ("volume/volume.zarr/**/*", "volume/receipts/*", "volume/pyramid/*", "wsi/*")
"""Results whose bytes depend on the input alone."""


LEFT = {"plane__width": 128, "expression__outside": "skip"}
"""The left part of the plane: 2 x 2 slabs."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project that ran to its end; tests leave it as it is."""
    project = Project(tmp_path_factory.mktemp("finished"), **LEFT)
    project.printed = project.run()
    return project


def needed_for(layout, slab):
    """Jobs per rule behind one slab's receipt, when no state is left."""
    states = {slab, slab._replace(row=slab.row + 1), slab._replace(col=slab.col + 1)}
    states &= set(layout.slabs(layout.phases - 1))
    jobs = Counter(stitch=1)
    for phase in reversed(range(layout.phases)):
        jobs[f"generate_p{phase:03d}"] = len(states)
        states = {s for slab in states for s in layout.sources(slab, phase)} if phase else states
    return jobs


def slabs_read(dot):
    """For each job of phase 1: the slabs whose phase 0 it needs, from Snakemake's graph."""
    jobs = dict(re.findall(r'(\d+)\[label = "generate_(p001|p000\\nslab: \w+)', dot))
    read = {number: set() for number, job in jobs.items() if job == "p001"}
    for needed, job in re.findall(r"^\s*(\d+) -> (\d+)", dot, re.M):
        if job in read and needed in jobs:
            read[job].add(jobs[needed].rpartition(" ")[2])
    return list(read.values())


def test_the_plan_needs_no_data(tmp_path):
    project = Project(tmp_path, plane__height=256, plane__width=256, plane__sections=3)
    (tmp_path / "molecules.csv").unlink()
    (tmp_path / "network.safetensors").unlink()
    printed = project.run("-n")
    assert planned(printed) == jobs_of(project.config)
    assert "warning: expression.source: no such file: molecules.csv" in printed
    assert "warning: network.checkpoint: no such file: network.safetensors" in printed


def test_the_bundled_example_plans_without_a_warning(tmp_path):
    project = Project(tmp_path)
    (tmp_path / "config.yaml").write_text((ROOT / "config.yaml").read_text())
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    printed = project.run("-n")
    assert planned(printed)["export_wsi"] == 4
    assert "warning: " not in printed


def test_a_title_may_hold_braces(tmp_path):
    project = Project(tmp_path, title="Brain {section} of {mouse}")
    assert planned(project.run("-n")) == jobs_of(project.config)


def around(place):
    """A place in a row of four and those beside it."""
    return range(max(place - 1, 0), min(place + 2, 4))


def test_a_phase_of_a_slab_needs_the_phase_before_of_itself_and_the_eight_around_it(tmp_path):
    project = Project(tmp_path, plane__height=256, plane__width=256)
    found = slabs_read(project.run("--dag"))
    wanted = [
        {f"w00_r{y:02d}_c{x:02d}" for y in around(row) for x in around(col)}
        for row in range(4)
        for col in range(4)
    ]
    assert sorted(map(sorted, found)) == sorted(map(sorted, wanted))


def test_the_jobs_are_those_of_the_geometry(finished):
    assert planned(finished.printed) == jobs_of(finished.config)


def test_a_window_is_stitched_before_the_next_begins(tmp_path):
    one_slab = {"plane__height": 64, "plane__width": 64, "plane__sections": 4}
    project = Project(tmp_path, **one_slab, generate__phases=2, expression__outside="skip")
    receipts = [f"out/volume/receipts/w{w:02d}_r00_c00.json" for w in range(2)]
    project.run("--cores", "1", *receipts)
    ended = sorted(project.results.glob("benchmarks/*/w*.tsv"), key=lambda p: p.stat().st_mtime_ns)
    # So the states of one window lie on the disk at a time.
    assert [path.name[:3] for path in ended] == ["w00"] * 3 + ["w01"] * 3


def test_everything_is_made_and_nothing_is_left_over(finished):
    made = finished.results
    sections = [f"section_{z:03d}.ome.tif" for z in range(2)]
    assert sorted(p.name for p in (made / "wsi").iterdir()) == sections
    assert sorted(p.name for p in (made / "volume/pyramid").iterdir()) == [
        "000.json",
        "001.json",
    ]
    assert "<html" in (made / "report.html").read_text()
    assert not list(made.glob("work/**/*.safetensors"))
    assert not finished.leftovers()


def test_the_record_tells_what_was_run(finished):
    record = json.loads((finished.results / "provenance.json").read_text())
    assert record["config"] == finished.config.model_dump(mode="json")
    assert set(record["inputs"]) == {"molecules.csv", "network.safetensors"}


def test_the_record_keeps_up_with_its_inputs(finished, tmp_path):
    project = finished.copy(tmp_path)
    table = tmp_path / "molecules.csv"
    with table.open("a") as file:
        file.write("Th,100.5,100.5,0\n")
    assert planned(project.run("-n"))["stitch"] == planned(finished.printed)["stitch"]
    project.run("out/expression/raster.zarr")
    before, after = (
        json.loads((p.results / "provenance.json").read_text())["inputs"]
        for p in (finished, project)
    )
    assert after == before | {"molecules.csv": digest(table)}


def test_a_volume_may_be_judged_without_a_reference(tmp_path):
    project = Project(tmp_path, evaluation={"frechet": None})
    jobs = planned(project.run("-n"))
    assert jobs["evaluate"] == 1
    assert jobs["evaluate_section"] == jobs["pyramid"]
    assert "fit_baseline" not in jobs


def test_receipts_hold_the_checksums_of_their_shards(finished):
    volume = finished.results / "volume/volume.zarr"
    receipts = sorted((finished.results / "volume/receipts").iterdir())
    assert len(receipts) == 4
    for path in receipts:
        receipt = json.loads(path.read_text())
        assert receipt["slab"] == path.stem
        assert len(receipt["shards"]) == 4  # 2 stains x 2 sections
        assert verify_shards(volume, receipt["shards"]) == []


def test_volume_and_slides_are_valid_and_hold_the_same_pixels(finished):
    volume = finished.results / "volume/volume.zarr"
    yaozarrs.validate_zarr_store(str(volume))
    voxels = read_volume(volume)
    assert voxels.shape == (2, 2, 128, 128)
    assert voxels.any()
    for z in range(2):
        slide = tifffile.imread(finished.results / f"wsi/section_{z:03d}.ome.tif")
        np.testing.assert_array_equal(slide, voxels[:, z])


def test_a_voxel_lies_where_the_molecules_in_it_do(tmp_path):
    project = Project(
        tmp_path,
        expression__origin=[-300, 1000],
        expression__units="um",
        region=[32, 64, 64, 96],
        plane__sections=3,
    )
    table = molecules(sections=3)
    table = table.assign(y=table.y / 2 - 300, x=table.x / 2 + 1000)
    table.to_csv(project.folder / "molecules.csv", index=False)
    volume = project.results / "volume/volume.zarr"
    project.run("--until", "create_volume")
    z, y, x = volume_layout(volume).origin_um
    settings, pixel = reader_settings(project.config.expression), 0.5
    assert settings.origin == (-300, 1000)
    found = [
        to_pixels(np.array([at]), origin=origin, pixel_size=pixel)[0]
        for at, origin in zip((y, x), settings.origin, strict=True)
    ]
    assert found == [32, 64]
    assert z == project.config.windows.first * project.config.plane.section_spacing_um


def test_slabs_and_phases_do_not_show(finished):
    network = load_network(finished.folder / "network.safetensors")
    whole = generate_region(network, finished.results / "expression/raster.zarr", steps=3)
    difference = np.abs(whole.astype(int) - read_volume(finished.results / "volume/volume.zarr"))
    assert difference.max() <= 1
    assert (difference == 0).mean() >= 0.999


def test_one_machine_has_one_gpu_and_its_own_memory(finished, tmp_path):
    provided = re.compile(r"^Provided resources: .*", re.M)
    mine = provided.search(finished.printed)[0]
    total = psutil.virtual_memory().total / 1e6
    found = {name: int(n) for name, n in re.findall(r'"(\w+)", (\d+)', mine)}
    assert found == {"gpu": 1, "mem_mb": pytest.approx(total, abs=2)}
    asked = Project(tmp_path).run("--until", "provenance", "--resources", "gpu=4", "mem_mb=900")
    assert '"gpu", 4' in provided.search(asked)[0]
    assert '"mem_mb", 900' in provided.search(asked)[0]


def test_lost_metadata_come_back_and_nothing_is_drawn_anew(finished, tmp_path):
    project = finished.copy(tmp_path / "copy")
    before = project.files("volume/**/*")
    (project.results / "volume/volume.zarr/0/zarr.json").unlink()
    status, printed = project.attempt("verify")
    assert status != 0
    assert "0/zarr.json: differs from what was written, or is missing" in printed
    assert project.files("volume/**/*") == before
    assert not planned(project.run("-n"))


def test_a_mistake_that_the_first_job_finds_may_be_mended(tmp_path):
    project = Project(tmp_path, expression__x="elsewhere")
    assert "columns missing: elsewhere" in project.fail()
    project.configure()
    printed = project.run("--", "out/expression/raster.zarr")
    assert "note:" not in printed
    record = json.loads((project.results / "provenance.json").read_text())
    assert record["config"]["expression"]["x"] == record["identity"]["expression.x"] == "x"
    project.configure(expression__x="elsewhere")
    assert "expression.x was 'x', is now 'elsewhere'" in project.fail()


def test_what_was_binned_outlives_its_source(finished, tmp_path):
    project = finished.copy(tmp_path / "copy")
    before = project.files("expression/**/*", "volume/**/*")
    (project.folder / "molecules.csv").unlink()
    assert not planned(project.run("-n"))
    project.run("plan")  # it reads the raster and makes no other file
    assert project.files("expression/**/*", "volume/**/*") == before
    os.utime(project.results / "expression/raster.zarr")
    assert planned(project.run("-n", "plan")) == {"plan": 1}


def test_a_second_run_has_nothing_to_do(finished, tmp_path):
    project = finished.copy(tmp_path)
    assert "Nothing to be done" in project.run()
    assert project.files("**/*") == finished.files("**/*")


def test_results_of_other_settings_are_refused(finished, tmp_path):
    project = finished.copy(tmp_path)
    before = project.files("**/*")
    project.configure(generate__seed=7)
    assert "generate.seed was 0, is now 7" in project.fail()
    assert project.files("**/*") == before


def test_one_slab_is_made_again_from_what_it_needs(finished, tmp_path):
    project = finished.copy(tmp_path)
    layout = project.config.layout()
    receipt = "volume/receipts/w00_r00_c00.json"
    (project.results / receipt).unlink()
    printed = project.run(f"out/{receipt}")
    assert planned(printed) == needed_for(layout, Slab(0, 0, 0))
    assert "Nothing to be done" in project.run()  # the same bytes ask for nothing more
    assert project.files(*KEPT) == finished.files(*KEPT)


NEVER_NAMED = """
import pathlib, time
replace = pathlib.Path.replace
def later(self, target):
    if str(target).endswith(".ome.tif"):
        time.sleep(60)
    return replace(self, target)
pathlib.Path.replace = later
"""
"""Slides keep their temporary name."""


def test_a_killed_job_is_made_again(finished, tmp_path, monkeypatch):
    """One moment; `faults` tries jobs of every kind at random ones."""
    project = finished.copy(tmp_path / "copy")
    shutil.rmtree(project.results / "wsi")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", site(tmp_path / "site", NEVER_NAMED))
        process = project.start("--cores", "1")
    job = nth_job(process, "export_wsi", 1)
    while not project.leftovers():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    job.kill()
    end(process)
    assert process.returncode == 1
    assert project.leftovers() and not project.files("wsi/section_*")
    project.run()
    assert project.files(*KEPT) == finished.files(*KEPT)
    assert not project.leftovers()


def test_a_killed_run_goes_on_to_the_same_bytes(finished, tmp_path):
    project = Project(tmp_path, **LEFT)
    process = project.start()
    while len(project.files("work/p001/[!.]*")) < 2:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    time.sleep(random.uniform(0, 3))
    printed = kill(process)
    assert process.returncode == -signal.SIGKILL
    assert not (project.results / "report.html").exists()
    done = Counter(re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", printed))
    assert done["generate_p000"]
    project.run("--unlock")
    again = planned(project.run())
    assert not done + again - jobs_of(project.config)  # no job that ended runs again
    assert project.files(*KEPT) == finished.files(*KEPT)


def generated(config, folder, **inputs):
    """The state files of all slabs after the last phase, without Snakemake."""
    layout, states = config.layout(), {}
    for phase in range(layout.phases):
        before, states = states, {}
        for slab in layout.slabs(phase):
            sources = [before[source] for source in layout.sources(slab, phase)] if phase else []
            states[slab] = folder / f"{phase}/{slab}.safetensors"
            generate_slab(config, slab, phase, sources=sources, output=states[slab], **inputs)
    return states


def stitched(config, states, *, volume, **inputs):
    """The receipts of slabs whose state files are given, in a new volume, without Snakemake."""
    create_volume(volume, planned_volume(config))
    return [
        stitch_slab(
            config,
            slab,
            state=state,
            right=states.get(slab._replace(col=slab.col + 1)),
            below=states.get(slab._replace(row=slab.row + 1)),
            volume=volume,
            **inputs,
        )
        for slab, state in states.items()
    ]


def receipts_of(config, folder, state_of, **inputs):
    """Receipts of the slabs of the last window, whose last states are those of `state_of`."""
    layout, run = config.layout(), run_digest(config, **inputs)
    last, window = layout.phases - 1, len(layout.windows) - 1
    states = {slab: folder / f"{slab}.safetensors" for slab in layout.slabs_of_window(window, last)}
    for slab, path in states.items():
        rect, identity = layout.core(slab, last), state_identity(slab, last, run)
        state = np.broadcast_to(state_of(slab, rect), (4, rect.height, rect.width))
        save_states(path, [state], windows=layout.windows_of(slab), rect=rect, identity=identity)
    return stitched(config, states, volume=folder / f"{config.plane.sections}.zarr", **inputs)


def test_a_section_beyond_the_stack_is_in_no_seam(tmp_path):
    """A window draws two sections; of the last window of three sections one is dropped."""
    write_network(checkpoint := tmp_path / "network.safetensors")
    write_raster(raster := tmp_path / "raster.zarr", sections=4)
    inputs = {"checkpoint": checkpoint, "raster": raster}

    def tissue(slab, rect):
        return np.random.default_rng(0).uniform(-1, 1, (4, rect.height, rect.width))

    configs = [parse_config(config_with(plane__sections=n)) for n in (3, 4)]
    three, four = (
        sum(receipt["seams"]["pixels"] for receipt in receipts_of(c, tmp_path, tissue, **inputs))
        for c in configs
    )
    assert 0 < 2 * three == four


@pytest.mark.parametrize(
    "asked",
    [
        {"seed": 7},
        {"solver": "dpm-solver++"},
        {"noise": "published"},
        {"region": (32, 64, 64, 96)},
        {"region": (32, 64, 64, 96), "bounds": "region"},
    ],
    ids=str,
)
def test_jobs_draw_what_the_configuration_says(tmp_path, asked):
    write_network(checkpoint := tmp_path / "network.safetensors")
    write_raster(raster := tmp_path / "raster.zarr", sections=2)
    top = {"region", "bounds"}
    config = parse_config(
        config_with(**{key if key in top else f"generate__{key}": asked[key] for key in asked})
    )
    inputs = {"checkpoint": checkpoint, "raster": raster}
    states = generated(config, tmp_path / "states", **inputs)
    stitched(config, states, volume=tmp_path / "volume.zarr", **inputs)
    network, steps = load_network(checkpoint), config.generate.steps
    whole = generate_region(network, raster, steps=steps, **asked).astype(int)
    assert np.abs(whole - read_volume(tmp_path / "volume.zarr")).max() <= 1
    other = generate_region(network, raster, steps=steps, region=asked.get("region"))
    if asked.keys() != {"region"}:
        assert np.abs(whole - other).max() > 1


@pytest.mark.parametrize("axis", ["x", "y"])
def test_seams_are_steps_across_borders_of_slabs_and_inside_patches(tmp_path, axis):
    """Two slabs, a ramp along an axis, and a jump from one to the other."""
    write_network(checkpoint := tmp_path / "network.safetensors")
    write_raster(raster := tmp_path / "raster.zarr", sections=4)
    height, width = (128, 192) if axis == "x" else (192, 128)
    config = parse_config(config_with(plane__height=height, plane__width=width, generate__slab=128))
    step, jump = 2**-9, 2**-4  # of the state, in which 2 are 255 grey levels

    def ramp(slab, rect):
        y, x = np.mgrid[rect.y : rect.bottom, rect.x : rect.right]
        return step * (x if axis == "x" else y) + jump * (slab.row + slab.col) - 1

    inputs = {"checkpoint": checkpoint, "raster": raster}
    first, second = (r["seams"] for r in receipts_of(config, tmp_path, ramp, **inputs))
    assert first["border"] == round((step + jump) * 255 / 2, 4)
    assert first["inside"] == round(step * 255 / 2, 4)
    assert second == {"border": None, "inside": None, "pixels": 0}


def write_raster(path, *, sections):
    """The molecules of the test projects, binned."""
    table = molecules(sections)
    with RasterWriter(path, panel=PANEL, sections=sections, extent=Rect(0, 0, *SIZE)) as writer:
        writer.add(
            section=table.section.to_numpy(),
            y=table.y.to_numpy(int),
            x=table.x.to_numpy(int),
            gene=table.gene.map(PANEL.index).to_numpy(),
        )


def test_windows_that_share_a_job_get_the_same_voxels(tmp_path):
    """Three windows, two phases: in jobs of two windows and of one, in jobs of one each."""
    changes = {"plane__sections": 5, "generate__slab": 192, "generate__phases": 2}
    project = Project(tmp_path, **changes, generate__windows=2)
    jobs = planned(project.run("-n"))
    assert jobs["generate_p000"] == jobs["generate_p001"] == jobs["stitch"] == 2
    write_raster(tmp_path / "raster.zarr", sections=5)
    volumes = []
    inputs = {"checkpoint": tmp_path / "network.safetensors", "raster": tmp_path / "raster.zarr"}
    for windows in (2, 1):
        config = parse_config(config_with(**changes, generate__windows=windows))
        folder = tmp_path / f"{windows}"
        states = generated(config, folder, **inputs)
        assert len(states) == {2: 2, 1: 3}[windows]
        stitched(config, states, volume=folder / "volume.zarr", **inputs)
        volumes.append(read_volume(folder / "volume.zarr"))
    assert volumes[0].any((0, 2, 3)).all()  # every section is drawn
    np.testing.assert_array_equal(*volumes)


def test_a_job_has_let_go_of_the_states_it_read_when_it_draws(tmp_path, monkeypatch):
    write_network(checkpoint := tmp_path / "network.safetensors")
    write_raster(raster := tmp_path / "raster.zarr", sections=2)
    plane = {"plane__height": 64, "plane__width": 128, "generate__steps": 2, "generate__phases": 2}
    made, held = [], []

    class Watched(SavedStates):
        def __init__(self, states):
            super().__init__(states)
            made.append(weakref.ref(self))

    def progress(total):
        return lambda patches: held.extend(states() for states in made)

    monkeypatch.setattr("teramind.engine.slab.SavedStates", Watched)
    monkeypatch.setattr("teramind.engine.slab.log_progress", progress)
    config = parse_config(config_with(**plane))
    generated(config, tmp_path / "states", checkpoint=checkpoint, raster=raster)
    assert set(held) == {None}


def test_states_of_other_expression_are_refused(tmp_path):
    """As a job leaves them that outlived its run, while the molecules were replaced."""
    write_network(checkpoint := tmp_path / "network.safetensors")
    for name, sections in (("first", 2), ("again", 2), ("other", 3)):
        write_raster(tmp_path / name, sections=sections)
    plane = {"plane__height": 64, "plane__width": 64, "generate__steps": 1, "generate__phases": 1}
    config = parse_config(config_with(**plane))
    inputs = {"checkpoint": checkpoint, "raster": tmp_path / "first"}
    states = generated(config, tmp_path / "states", **inputs)
    inputs["raster"] = tmp_path / "other"
    with pytest.raises(UserError, match="belongs to run"):
        stitched(config, states, volume=tmp_path / "a", **inputs)
    inputs["raster"] = tmp_path / "again"
    assert stitched(config, states, volume=tmp_path / "b", **inputs)


def test_cells_are_binned(tmp_path):
    rng = np.random.default_rng(2)
    counts = rng.integers(0, 5, (50, len(PANEL)))
    cells = anndata.AnnData(
        counts.astype(np.float32),
        obs=pd.DataFrame({"slice": ["a", "b"] * 25}, index=[f"cell{i}" for i in range(50)]),
        var=pd.DataFrame(index=list(PANEL)),
        obsm={"spatial": rng.uniform(30, 100, (50, 2))},
    )
    cells.write_h5ad(tmp_path / "cells.h5ad")
    project = Project(
        tmp_path,
        expression={
            "kind": "cells",
            "source": "cells.h5ad",
            "section": "slice",
            "section_values": ["a", "b"],
            "units": "pixel",
        },
    )
    project.run("--until", "bin_expression")
    raster = Raster.open(project.results / "expression/raster.zarr")
    assert raster.panel == PANEL
    assert raster.molecules_per_section == (counts[::2].sum(), counts[1::2].sum())


def test_published_tiles_are_binned(tmp_path):
    folder = tmp_path / "tiles"
    folder.mkdir()
    np.savez(
        folder / "0_256_0_256_-128_384_-128_384.npz",
        coords=np.array([[128, 200, 383], [128, 300, 383], [0, 4, 5]]),
        data=np.array([1, 2, 3], np.uint16),
        shape=np.array([512, 512, 6]),
        fill_value=np.array(0),
    )
    project = Project(
        tmp_path,
        expression={"kind": "tiles", "source": "tiles", "genes": 3},
        plane__height=256,
        plane__width=256,
    )
    project.run("--until", "bin_expression")
    raster = Raster.open(project.results / "expression/raster.zarr")
    assert raster.molecules_per_section == (1, 5)
    assert raster.bounds == project.config.plane.rect  # the tiles' frames are no part of the volume
