"""Training sees paired images and expression where the network would, and nothing else."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from training_pair import FIELD, blob_windows, blobs, write_raster

from teramind.errors import UserError
from teramind.expression.raster import Raster
from teramind.expression.raster_writer import RasterWriter
from teramind.geometry import BIN, EMPTY, Rect
from teramind.training.dataset import PairedImages, TrainingWindows
from teramind.training.material import sizes_digest


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_batch_depends_on_seed_and_step_alone(windows, tmp_path, tiny_spec):
    again = blob_windows(tmp_path / "again", tiny_spec)
    for step in (7, 0, 7, 3):
        assert equal(windows(step), again(step))
    assert not equal(windows(0), windows(1))
    assert not equal(windows(0), blob_windows(tmp_path / "other", tiny_spec, seed=1)(0))


def test_a_windows_noise_is_its_own_whatever_else_is_drawn(tmp_path, tiny_spec):
    four, two = (blob_windows(tmp_path / str(n), tiny_spec, batch=n)(5).noise for n in (4, 2))
    assert torch.equal(four[:2], two)
    assert len(torch.unique(four[:, 0, 0, 0])) == 4
    assert abs(four.mean()) < 0.05 and abs(four.std() - 1) < 0.05


def test_a_batch_has_the_shapes_that_the_loss_takes(tmp_path, tiny_spec):
    batch = blob_windows(tmp_path, tiny_spec, batch=2)(0)
    assert batch.image.shape == batch.noise.shape == (2, 4, 64, 64)
    assert batch.inside.shape == batch.image.shape
    assert batch.counts.shape == (2, 4, 2, 2, 4, 3)
    assert ((batch.t >= 0) & (batch.t < 1000)).all()
    assert (batch.image.abs() <= 1).all()
    assert (batch.image[~batch.inside] == -1).all()


def test_windows_reach_half_a_patch_beyond_the_images_and_no_further(windows, tiny_spec):
    half = tiny_spec.half
    places = np.array([*windows.places])
    assert places.min(0).tolist() == [-half, -half]
    ends = places.max(0) + windows.size
    assert ends.tolist() == [FIELD.height + half, FIELD.width + half]


@given(
    rect=st.builds(
        Rect, st.integers(0, 120), st.integers(0, 150), st.integers(1, 30), st.integers(1, 30)
    )
)
@settings(max_examples=25, deadline=None)
def test_no_window_touches_what_is_closed(windows, rect):
    pairs, spec = windows.pairs, windows.spec
    kept = TrainingWindows(pairs, spec, edge=2, batch=1, seed=0, closed=[rect]).places
    free = [
        place
        for place in [*windows.places]
        if Rect(*place, windows.size, windows.size).cut(rect) == EMPTY
    ]
    assert [*kept] == free


def test_what_a_closed_part_holds_is_never_seen(tmp_path, tiny_spec):
    holdout = Rect(0, 90, 128, 70)
    images = np.zeros((2, 2, FIELD.height, FIELD.width), np.uint8)
    images[:, :, *holdout.slices] = 255
    raster = write_raster(tmp_path / "raster", [], sections=2)
    pairs = PairedImages(images, raster)
    windows = TrainingWindows(pairs, tiny_spec, edge=2, batch=8, seed=0, closed=[holdout])
    assert all((windows(step).image == -1).all() for step in range(10))


def test_images_too_small_for_a_window_are_refused(windows, tiny_spec):
    for changes in ({"edge": 6}, {"closed": [FIELD]}):
        options = {"edge": 2, "batch": 1, "seed": 0} | changes
        with pytest.raises(
            UserError, match=r"no window of \d+ pixels fits the train part of the images \(128"
        ):
            TrainingWindows(windows.pairs, tiny_spec, **options)


@pytest.mark.parametrize(
    ("images", "network", "fault"),
    [
        ((1, 2), {}, "1 stains in the images, should be 2"),
        ((2, 3), {}, "3 sections in the images, should be 2"),
        ((2, 2), {"genes": 4, "panel": ()}, "3 genes in the raster, should be 4"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(windows, tiny_spec, images, network, fault):
    pairs = PairedImages(np.zeros((*images, 128, 160), np.uint8), windows.pairs.raster)
    spec = dataclasses.replace(tiny_spec, **network)
    with pytest.raises(UserError, match=fault):
        TrainingWindows(pairs, spec, edge=2, batch=1, seed=0)


def test_images_and_counts_are_turned_together(tmp_path, tiny_spec):
    y, x, count = np.array([70, 35, 99]), np.array([51, 83, 115]), [5, 7, 9]
    section, stain, gene = np.array([0, 1, 1]), np.array([0, 1, 0]), np.array([2, 0, 1])
    images = np.zeros((2, 2, FIELD.height, FIELD.width), np.uint8)
    images[stain, section, y, x] = 255
    molecules = np.stack([section, y, x, gene, count], 1)
    pairs = PairedImages(images, write_raster(tmp_path / "raster", molecules, sections=2))
    windows = TrainingWindows(pairs, tiny_spec, edge=3, batch=4, seed=0)
    seen = Counter()
    for step in range(30):
        batch = windows(step)
        for image, patches in zip(batch.image, batch.counts, strict=True):
            plane = patches.unflatten(0, (3, 3)).permute(0, 2, 1, 3, 4, 5).reshape(6, 6, 4, 3)
            pixels = image.unflatten(0, (2, 2))  # (stain, z, y, x)
            for k in range(3):
                bright = (pixels[stain[k], section[k]] == 1).nonzero()
                # A window's images are the middle two of its four expression sections.
                found = (plane[:, :, section[k] + 1, gene[k]] == count[k]).nonzero()
                assert torch.equal(bright // BIN, found)
                seen.update((k, *(pixel % BIN).tolist()) for pixel in bright)
    assert {k for k, _, _ in seen} == {0, 1, 2}
    assert len({turn for turn in seen if turn[0] == 0}) == 8  # quarter turns and mirrors


def test_windows_lie_where_there_is_expression_and_see_nothing_beyond(tmp_path, tiny_spec):
    images, molecules = blobs()
    raster = write_raster(tmp_path / "raster", molecules, sections=2)
    larger = np.pad(images, ((0, 0), (0, 0), (0, 96), (0, 64)), constant_values=200)
    pairs = PairedImages(larger, raster)
    assert pairs.area == FIELD
    windows = TrainingWindows(pairs, tiny_spec, edge=2, batch=1, seed=0)
    alone = blob_windows(tmp_path / "alone", tiny_spec)
    np.testing.assert_array_equal([*windows.places], [*alone.places])
    assert all(equal(windows(step), alone(step)) for step in range(8))


def test_a_section_beyond_the_stack_is_nowhere_inside(tmp_path, tiny_spec):
    images, molecules = blobs()
    raster = write_raster(tmp_path / "raster", molecules[molecules[:, 0] == 0], sections=1)
    windows = TrainingWindows(
        PairedImages(images[:, :1], raster), tiny_spec, edge=2, batch=4, seed=0
    )
    sections = windows(0).inside.unflatten(1, (2, 2))  # (b, stain, z, y, x)
    assert sections[:, :, 0].flatten(1).any(1).all() and not sections[:, :, 1].any()


def test_no_window_lies_beyond_the_bounds_of_the_volume(tmp_path, tiny_spec):
    """Published tiles reach beyond them: there the split says nothing."""
    images, bounds = blobs()[0], Rect(32, 48, 96, 112)
    with RasterWriter(
        tmp_path / "raster", panel=tiny_spec.panel, sections=2, extent=FIELD, bounds=bounds
    ):
        pass
    pairs = PairedImages(images, Raster.open(tmp_path / "raster"))
    windows = TrainingWindows(pairs, tiny_spec, edge=2, batch=1, seed=0)
    places, half = np.array([*windows.places]), tiny_spec.half
    assert places.min(0).tolist() == [bounds.y - half, bounds.x - half]
    ends = places.max(0) + windows.size
    assert ends.tolist() == [bounds.bottom + half, bounds.right + half]


def test_data_are_told_apart_by_the_sizes_of_their_files_and_not_by_place_or_age(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (1, 1, 512, 512)).astype(np.uint8)
    changed = image.copy()
    changed[..., 100:164, 300:364] = 0

    def stored(name, pixels):
        path = tmp_path / name / "images.zarr"
        zarr.create_array(path, shape=pixels.shape, dtype="uint8", chunks=(1, 1, 128, 128))[:] = (
            pixels
        )
        return path

    one, same, other = stored("a", image), stored("b", image), stored("c", changed)
    assert sizes_digest([one]) == sizes_digest([same])
    assert sizes_digest([one]) != sizes_digest([other])
