"""The plan counts what the run will do: patches, jobs, files and bytes."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from test_geometry import layouts
from workflow_project import SIZE, Project, molecules, planned

from teramind.config import parse_config
from teramind.engine.generate import Generator
from teramind.engine.phase_plane import touched
from teramind.expression.raster import Raster
from teramind.expression.raster_writer import RasterWriter
from teramind.geometry import BIN
from teramind.plan.assume import assume
from teramind.plan.estimate import estimate
from teramind.plan.tissue import wanted_patches
from teramind.plan.work import phase_work, wanted_work
from teramind.volume import read_volume

few = settings(max_examples=15)


def write_raster(path, layout, rng, molecules):
    """Molecules of one gene anywhere in and around the bounds, off the patches' lattice."""
    extent = layout.bounds.grown(3 * BIN)
    with RasterWriter(
        path, panel=["Gad1"], sections=layout.windows.planes, extent=extent
    ) as raster:
        raster.add(
            section=rng.integers(0, layout.windows.planes, molecules),
            y=rng.integers(extent.y, extent.bottom, molecules),
            x=rng.integers(extent.x, extent.right, molecules),
            gene=np.zeros(molecules, int),
        )
    return Raster.open(path)


def engine(layout, raster, margin):
    """The part of the engine that says what it will compute."""
    return Generator(
        network=None, expression=raster, noise=None, layout=layout, schedule=[], margin=margin
    )


def passes(masks):
    """Decoder and encoder passes of the engine's masks."""
    some = [mask for mask in masks if mask.any()]
    return sum(int(m.sum()) for m in some), sum(int(touched(m).sum()) for m in some)


@few
@given(layouts(), st.integers(0, 6), st.integers(0, 2), st.integers(0, 2**32))
def test_the_counted_passes_are_those_of_the_engine(
    tmp_path_factory, layout, molecules, margin, seed
):
    folder = tmp_path_factory.mktemp("raster")
    raster = write_raster(folder / "r.zarr", layout, np.random.default_rng(seed), molecules)
    generator = engine(layout, raster, margin)
    wanted = wanted_patches(raster, layout, margin=margin)
    last = [generator.needed(w, layout.bounds, 0) for w in range(len(layout.windows))]
    assert all((a == b).all() for a, b in zip(wanted, last, strict=True))
    assert wanted_work(layout, wanted) == sum(int(m.sum()) for m in last) * layout.steps
    for phase in range(layout.phases):
        found = phase_work(layout, phase, wanted).stacked(layout.stack)
        for slab in layout.slabs(phase):
            stack = slab.window // layout.stack
            place = stack, found.rows.index(slab.row), found.cols.index(slab.col)
            counted = found.decoded[place], found.encoded[place]
            of_windows = [generator.masks(single, phase) for single in layout.singles(slab)]
            assert counted == tuple(map(sum, zip(*map(passes, of_windows), strict=True)))


@few
@given(layouts())
def test_without_a_raster_all_of_the_region_is_wanted(layout):
    p = layout.patch
    everywhere = np.zeros((layout.bounds.height // p, layout.bounds.width // p), bool)
    rows, cols = layout.region.within(layout.bounds)
    everywhere[rows.start // p : rows.stop // p, cols.start // p : cols.stop // p] = True
    masks = [everywhere] * len(layout.windows)
    assert wanted_work(layout, None) == wanted_work(layout, masks)
    for phase in range(layout.phases):
        assumed, masked = phase_work(layout, phase, None), phase_work(layout, phase, masks)
        for name in ("decoded", "encoded", "pixels"):
            assert (getattr(assumed, name) == getattr(masked, name)).all()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny run to its end, its states kept; its only window draws a section too many."""
    project = Project(
        tmp_path_factory.mktemp("planned"),
        plane__sections=1,
        generate__slab=128,
        generate__steps=2,
        generate__phases=2,
        generate__margin=0,
        evaluation={"frechet": None},
    )
    molecules(sections=1).to_csv(project.folder / "molecules.csv", index=False)
    project.printed = project.run("--notemp")
    return project


@pytest.fixture(scope="module")
def plan(finished):
    """Its plan, from the raster it made."""
    config = parse_config(finished.values | {"results": str(finished.results)})
    network = config.network.model_copy(
        update={"checkpoint": str(finished.folder / "network.safetensors")}
    )
    config = config.model_copy(update={"network": network})
    given, notes = assume(config, hardware="a100", workers=2)
    (note,) = notes
    assert note == (
        "speed of NVIDIA A100 SXM 80 GB in float32 is at most its peak, which is assumed; "
        "known: published"
    )
    return estimate(config, given)


def test_the_jobs_are_those_that_snakemake_runs(finished, plan):
    assert planned(finished.printed) == plan.jobs


def test_the_files_are_those_that_a_run_leaves(finished, plan):
    def count(folder):
        return sum(path.is_file() for path in (finished.results / folder).rglob("*"))

    assert {folder: count(folder) for folder in plan.files} == plan.files


def test_the_bytes_of_states_are_those_on_the_disk(finished, plan):
    def payload(path):
        content = path.read_bytes()
        return len(content) - 8 - int.from_bytes(content[:8], "little")

    states = list((finished.results / "work").rglob("*.safetensors"))
    assert sum(map(payload, states)) == plan.state_bytes


def test_the_bytes_of_results_are_those_of_volume_and_slides(finished, plan):
    volume = read_volume(finished.results / "volume/volume.zarr")
    assert volume.nbytes == plan.voxels
    slides = 0
    for path in (finished.results / "wsi").glob("*.tif"):
        with tifffile.TiffFile(path) as slide:
            slides += sum(level.nbytes for level in slide.series[0].levels)
    assert volume.nbytes + slides == round(plan.result_bytes / plan.tissue_fraction)


def test_the_tissue_is_that_of_the_raster(plan):
    patches = SIZE[0] // 32 * (SIZE[1] // 32)
    assert plan.tissue_known
    assert plan.tissue_fraction == (patches - 2) / patches  # the upper left corner is empty
