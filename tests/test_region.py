"""A region in memory in one call, and the published chain from molecules to image."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import teramind
from teramind.engine.generate import Generator
from teramind.engine.noise import make_noise
from teramind.engine.region import generate_region
from teramind.engine.solver import sampling_steps
from teramind.engine.state import to_grey
from teramind.errors import UserError
from teramind.expression.raster import Raster
from teramind.expression.raster_writer import RasterWriter
from teramind.expression.tiles import import_tiles
from teramind.geometry import Layout, Rect, Slab, Windows
from teramind.network import load_network
from teramind.network.fast import for_inference

RESOURCES = Path(__file__).parents[1] / "resources"
EXTENT = Rect(64, 32, 64, 96)
"""Pixels of the plane that the test rasters cover: 2 x 3 patches."""


def write_raster(path, *, panel=("Gad1", "Slc17a7", "Th"), sections=3, extent=EXTENT):
    """A raster with 300 molecules everywhere in its extent."""
    random = np.random.default_rng(1)
    with RasterWriter(path, panel=panel, sections=sections, extent=extent) as writer:
        writer.add(
            section=random.integers(0, sections, 300),
            y=random.integers(extent.y, extent.bottom, 300),
            x=random.integers(extent.x, extent.right, 300),
            gene=random.integers(0, len(panel), 300),
        )
    return path


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    return write_raster(tmp_path_factory.mktemp("region") / "raster.zarr")


@pytest.mark.slow
def test_the_published_chain_is_repeated(shared, tmp_path):
    """The first of two windows; `test_workflow_published` holds both after the first step."""
    chain = load_file(shared("goldens/z4_all_64_chain.safetensors"))
    genes = [f"gene_{i}" for i in range(500)]
    import_tiles(shared("goldens/chain_genes"), tmp_path / "raster", panel=genes, genes=500)
    network = load_network(shared("goldens/z4_all_64_weights.safetensors"))
    plane, windows = Rect(256, 512, 512, 768), Windows(sections=4, planes=4)
    generator = Generator(
        network=for_inference(network),
        expression=Raster.open(tmp_path / "raster"),
        noise=make_noise("published", seed=0, stains=2, patch=64, windows=windows),
        layout=Layout.whole(plane, patch=64, windows=windows, steps=15),
        schedule=sampling_steps(15),
    )
    state = generator.run_phase(Slab(0, 0, 0), 0, generator.initial(0)).reshape(2, 2, 512, 768)
    wanted = chain["state_after_15"].float().numpy().reshape(2, 4, 512, 768)[:, :2]
    error = np.abs(state - wanted).max()
    print(f"largest error {error:.2e}")
    assert error <= 2e-3


def test_the_whole_raster_is_stain_section_y_x_in_grey_levels(tiny_network, raster):
    grey = generate_region(tiny_network, raster, steps=2)
    assert grey.shape == (2, 3, EXTENT.height, EXTENT.width)
    assert grey.dtype == np.uint8


def test_grey_levels_are_those_of_the_raw_state(tiny_network, raster):
    state = generate_region(tiny_network, raster, steps=2, raw=True)
    assert state.dtype == np.float32
    assert np.abs(state).max() <= 1
    np.testing.assert_array_equal(generate_region(tiny_network, raster, steps=2), to_grey(state))


def test_an_unaligned_region_is_a_crop_of_the_whole(tiny_network, raster):
    whole = generate_region(tiny_network, raster, steps=2, raw=True)
    part = generate_region(tiny_network, raster, region=(75, 51, 42, 60), steps=2, raw=True)
    np.testing.assert_allclose(part, whole[..., 11:53, 19:79], atol=1e-5)


def test_as_bounds_a_region_has_other_voxels_at_its_edge(tiny_network, raster):
    inside = {"region": (96, 64, 32, 32), "steps": 2, "raw": True}
    volume = generate_region(tiny_network, raster, **inside)
    alone = generate_region(tiny_network, raster, bounds="region", **inside)
    assert np.abs(volume - alone).max() > 1e-4


def test_on_a_gpu_float32_is_not_rounded_and_the_networks_own_precision_stays(
    tiny_network, raster, monkeypatch
):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # the default
    conv = tiny_network.middle_out.conv_in
    monkeypatch.setattr(conv, "lower", torch.bfloat16)
    generate_region(tiny_network, raster, region=(64, 32, 32, 32), steps=1)
    assert not torch.backends.cudnn.allow_tf32
    assert conv.lower == torch.bfloat16


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"noise": "publishd"}, "noise: got 'publishd'; must be one of 'philox', 'published'"),
        ({"bounds": "regoin"}, "bounds: got 'regoin'; must be one of 'volume', 'region'"),
        ({"solver": "DDIM"}, "solver: got 'DDIM'; must be one of 'published', 'ddim', 'dpm-"),
        ({"seed": -1}, "seed: -1; must lie between 0 and 2^64 - 1"),
    ],
)
def test_arguments_that_are_no_choice_are_named(tiny_network, raster, wrong, line):
    with pytest.raises(UserError, match=re.escape(line)):
        generate_region(tiny_network, raster, steps=1, **wrong)


def test_expression_at_another_pixel_size_is_refused(tiny_network, raster, tmp_path):
    path, extent = tmp_path / "raster", Rect(0, 0, 32, 32)
    with RasterWriter(
        path, panel=tiny_network.spec.panel, sections=1, extent=extent, pixel_size_um=0.4
    ):
        pass
    with pytest.raises(UserError, match=r"pixels of 0\.4 um, but .* trained at 0\.5"):
        generate_region(tiny_network, path, steps=1)


def test_a_wider_margin_draws_more_background(tiny_network, tmp_path):
    """One molecule in the middle of five patches: with itself, one more, or two on every side."""
    path, extent = tmp_path / "raster", Rect(0, 0, 32, 160)
    at = {"section": np.zeros(1, int), "y": np.full(1, 16), "x": np.full(1, 80)}
    with RasterWriter(path, panel=tiny_network.spec.panel, sections=1, extent=extent) as writer:
        writer.add(**at, gene=np.zeros(1, int))
    for margin in (0, 1, 2):
        state = generate_region(tiny_network, path, steps=1, margin=margin, raw=True)
        drawn = (state != -1).any((0, 1, 2)).reshape(5, 32).any(1)
        assert drawn.tolist() == [abs(k - 2) <= margin for k in range(5)]


def test_seed_decides_and_nothing_else(tiny_network, raster):
    first, again, other = (
        generate_region(tiny_network, raster, steps=1, seed=seed) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_published_noise_has_no_seed(tiny_network, raster):
    first, other = (
        generate_region(tiny_network, raster, steps=1, noise="published", seed=seed)
        for seed in (3, 4)
    )
    np.testing.assert_array_equal(first, other)
    assert (first != generate_region(tiny_network, raster, steps=1)).any()


@pytest.fixture(scope="module")
def part_and_whole(tmp_path_factory):
    """Rasters of the same molecules: a plane of 16 x 16 patches, and its middle of 8 x 8.

    The latter is as one of tiles may be.
    """
    folder, plane = tmp_path_factory.mktemp("part"), Rect(0, 0, 512, 512)
    random = np.random.default_rng(2)
    y, x, gene = (random.integers(0, most, 100) for most in (plane.bottom, plane.right, 3))
    for name, extent in (("part", Rect(128, 128, 256, 256)), ("whole", plane)):
        with RasterWriter(
            folder / name,
            panel=("Gad1", "Slc17a7", "Th"),
            sections=1,
            extent=extent,
            bounds=plane,
        ) as writer:
            writer.add(section=0 * y, y=y, x=x, gene=gene)
    return folder / "part", folder / "whole"


@pytest.fixture(scope="module")
def part(part_and_whole):
    return part_and_whole[0]


@pytest.mark.parametrize(
    "beyond",
    [
        {},
        {"region": (0, 0, 64, 64)},
        {"region": (128, 128, 64, 64), "bounds": "region"},
        {"region": (192, 192, 64, 64), "steps": 3},
        {"region": (192, 192, 64, 64), "margin": 3},
    ],
)
def test_expression_beyond_that_of_a_part_of_the_plane_is_refused(tiny_network, part, beyond):
    with pytest.raises(UserError, match=r"holds expression of \(128, 128, 256, 256\) only"):
        generate_region(tiny_network, part, **{"steps": 1, **beyond})


@pytest.mark.parametrize(
    "inside",
    [{"steps": 2}, {"steps": 4, "bounds": "region"}, {"steps": 1, "margin": 2}],
)
def test_a_part_of_the_plane_is_enough_for_what_reads_no_more(tiny_network, part_and_whole, inside):
    part, whole = (
        generate_region(tiny_network, path, region=(192, 192, 64, 64), raw=True, **inside)
        for path in part_and_whole
    )
    assert part.shape == (2, 1, 64, 64)
    assert np.ptp(part) > 0
    np.testing.assert_array_equal(part, whole)


def test_one_section_is_enough_for_windows_of_four(tiny_network, tmp_path):
    path = write_raster(tmp_path / "raster.zarr", sections=1)
    grey = generate_region(tiny_network, path, steps=2)
    assert grey.shape == (2, 1, EXTENT.height, EXTENT.width)
    assert np.ptp(grey) > 0


def test_the_bundled_network_draws_what_molecules_of_its_panel_say(tmp_path):
    panel = (RESOURCES / "panels/phantom_32.txt").read_text().split()
    network = teramind.load_network(RESOURCES / "phantom.safetensors")
    assert list(network.spec.panel) == panel
    path, extent = tmp_path / "raster", Rect(0, 0, 2 * network.spec.patch, 2 * network.spec.patch)
    random = np.random.default_rng(3)
    limits = (network.spec.images, extent.height, extent.width, len(panel))
    section, y, x, gene = (random.integers(0, limit, 500) for limit in limits)
    with RasterWriter(
        path,
        panel=panel,
        sections=network.spec.images,
        extent=extent,
        pixel_size_um=network.spec.pixel_size_um,
    ) as writer:
        writer.add(section=section, y=y, x=x, gene=gene)
    state = teramind.generate_region(network, path, steps=2, raw=True)
    shape = (len(network.spec.stains), network.spec.images, extent.height, extent.width)
    assert state.shape == shape
    assert np.isfinite(state).all()
    assert (np.ptp(state, axis=(2, 3)) > 0).all()  # something, in each section of each stain


def test_background_is_grey_level_0_and_raw_minus_1(tiny_network, tmp_path):
    extent = Rect(0, 0, 64, 160)
    with RasterWriter(
        tmp_path / "raster", panel=tiny_network.spec.panel, sections=1, extent=extent
    ) as writer:
        zero = np.zeros(1, np.int64)
        writer.add(section=zero, y=zero, x=zero, gene=zero)
    assert (generate_region(tiny_network, tmp_path / "raster", steps=1)[..., 64:] == 0).all()
    state = generate_region(tiny_network, tmp_path / "raster", steps=1, raw=True)
    assert (state[..., 64:] == -1).all()
    assert (state[..., :64] > -1).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"region": (0, 0, 32, 32)}, "inside the raster"),
        ({"region": (64, 32, 65, 32)}, "inside the raster"),
        ({"region": (64, 32, 0, 32)}, "inside the raster"),
        ({"region": (70, 32, 32, 32), "bounds": "region"}, "multiples of the patch edge 32"),
        ({"steps": 501}, "501 has no integer stride"),
        ({"steps": 0}, "steps"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tiny_network, raster, settings, message):
    with pytest.raises(UserError, match=message):
        generate_region(tiny_network, raster, **settings)


@pytest.mark.parametrize(
    ("panel", "message"),
    [
        (("Gad1", "Slc17a7"), "2 genes, the network reads 3"),
        (("Gad1", "Th", "Slc17a7"), "gene 1 is Th, the network reads Slc17a7"),
    ],
)
def test_expression_of_another_panel_is_refused(tiny_network, tmp_path, panel, message):
    path = write_raster(tmp_path / "raster.zarr", panel=panel)
    with pytest.raises(UserError, match=message):
        generate_region(tiny_network, path)


def test_a_longer_panel_with_the_networks_genes_first_gives_the_same(tiny_network, tmp_path):
    y, gene = np.arange(64, 128, 8), np.arange(8) % 3
    for name, more in (("a", ()), ("b", ("Sst",))):
        panel = (*tiny_network.spec.panel, *more)
        with RasterWriter(tmp_path / name, panel=panel, sections=1, extent=EXTENT) as writer:
            writer.add(section=0 * y, y=y, x=y, gene=gene)
            if more:
                writer.add(section=0 * y, y=y, x=y, gene=np.full(8, 3))
    found = [generate_region(tiny_network, tmp_path / name, steps=1) for name in "ab"]
    np.testing.assert_array_equal(*found)
