"""Initial noise: a pure function of seed and place, standard normal, and the published rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from scipy import stats
from scipy.special import ndtri

from teramind.engine.noise import PhiloxNoise, PublishedNoise
from teramind.geometry import Rect

WHOLE = Rect(32, 64, 96, 128)
few = settings(max_examples=25)
crops = st.builds(
    lambda y, x, height, width: Rect(y, x, height, width).cut(WHOLE),
    *[st.integers(32, 127), st.integers(64, 191), st.integers(1, 96), st.integers(1, 128)],
)


def philox(*, seed=5, stains=2, patch=32):
    return PhiloxNoise(seed=seed, stains=stains, patch=patch)


def philox_block(key, counter):
    """Four words of Philox 4x64 with ten rounds, as Salmon et al. 2011 define it."""
    low = 2**64 - 1
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (b >> 64) ^ c1 ^ k0, b & low, (a >> 64) ^ c3 ^ k1, a & low
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & low, (k1 + 0xBB67AE8584CAA73B) & low
    return c0, c1, c2, c3


@few
@given(crops, st.lists(st.integers(0, 9), min_size=1, max_size=3))
def test_a_crop_of_the_plane_is_a_crop_of_its_noise(crop, sections):
    whole = philox()(WHOLE, range(10))
    np.testing.assert_array_equal(philox()(crop, sections), whole[:, sections, *crop.within(WHOLE)])


@pytest.mark.parametrize("seed", [0, 5, 2**63 + 11, 2**64 - 1])
def test_bits_are_philox_keyed_by_seed_and_counted_by_place(seed):
    section, stain, row, col = 7, 1, 3, 5
    found = philox(seed=seed)(Rect(row * 32, col * 32, 1, 8), [section])[stain, 0, 0]
    blocks = [philox_block((seed, 0), (n, 2 * section + stain, row, col)) for n in (1, 2)]
    words = np.array([word >> 11 for block in blocks for word in block], float)
    np.testing.assert_array_equal(found, ndtri((words + 0.5) * 2.0**-53).astype(np.float32))


def test_no_two_seeds_sections_stains_or_patches_share_noise():
    patches = [
        philox(seed=seed)(tile, [section])[stain, 0]
        for seed in (0, 1)
        for section in (0, 1, 2)
        for stain in (0, 1)
        for tile in Rect(0, 0, 64, 64).blocks(32)
    ]
    flat = np.stack([patch.ravel() for patch in patches])
    correlation = np.corrcoef(flat) - np.eye(len(flat))
    assert np.abs(correlation).max() < 5 / np.sqrt(flat.shape[1])


@pytest.mark.parametrize(
    "noise", [philox(), PublishedNoise(sections=2, stains=2)], ids=["philox", "published"]
)
def test_noise_is_standard_normal(noise):
    sample = noise(Rect(0, 0, 256, 256), [0, 1]).ravel().astype(float)
    error = 4 / np.sqrt(len(sample))
    assert abs(sample.mean()) < error
    assert abs(sample.var() - 1) < error * np.sqrt(2)
    assert abs(stats.skew(sample)) < error * np.sqrt(6)
    assert abs(stats.kurtosis(sample)) < error * np.sqrt(24)
    assert stats.kstest(sample, "norm").pvalue > 1e-3


def test_published_noise_is_the_golden_tile(shared):
    chain = load_file(shared("goldens/z4_all_64_chain.safetensors"))
    noise = PublishedNoise(sections=4, stains=2)(Rect(256, 512, 256, 256), range(4))
    golden = chain["noise_tile_row1_col2"].transpose(2, 0, 1)
    np.testing.assert_array_equal(noise.reshape(8, 256, 256).astype(np.float16), golden)


@few
@given(crops, st.lists(st.integers(0, 3), min_size=1, max_size=3))
def test_a_crop_of_published_noise_agrees_across_tiles(crop, sections):
    noise, whole = PublishedNoise(sections=4, stains=1), Rect(224, 192, 96, 128)
    moved = Rect(crop.y + 192, crop.x + 128, crop.height, crop.width)
    np.testing.assert_array_equal(
        noise(moved, sections), noise(whole, range(4))[:, sections, *moved.within(whole)]
    )


def test_published_noise_counts_sections_from_the_volumes_first():
    rect = Rect(0, 0, 8, 8)
    all_made = PublishedNoise(sections=4, stains=2)(rect, range(4))
    without_outermost = PublishedNoise(sections=4, stains=2, first=1)(rect, range(1, 5))
    np.testing.assert_array_equal(without_outermost, all_made)


def test_published_noise_has_some_for_the_sections_that_are_dropped_behind_the_last():
    rect = Rect(0, 0, 8, 8)
    kept = PublishedNoise(sections=3, stains=2)(rect, [2])
    last_window = PublishedNoise(sections=3, stains=2)(rect, [2, 3])
    assert last_window.shape == (2, 2, 8, 8)
    np.testing.assert_array_equal(last_window[:, :1], kept)
