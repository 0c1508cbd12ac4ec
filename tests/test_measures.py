"""Each measure gives the known answer on images made for the purpose."""

from dataclasses import replace
from functools import partial
from itertools import takewhile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.stats import pearsonr

from teramind.evaluate.blocks import BLOCK, ENOUGH_PARTS, Tally, estimate, ratio
from teramind.evaluate.borders import border_ratio, border_sums
from teramind.evaluate.intensity import (
    BANDS_UM,
    histogram,
    log_power_ratio,
    spectrum_sums,
    wasserstein,
)
from teramind.evaluate.measure import Lattice, Scene
from teramind.evaluate.nuclei import (
    MATCH_UM,
    Nuclei,
    census,
    find_nuclei,
    matched,
    nearest_neighbours_um,
    otsu,
)
from teramind.evaluate.structure import correlation, pair_sums, smooth
from teramind.geometry import Rect


def texture(seed, shape=(256, 256), sigma=2.0):
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    return np.clip(120 + 40 * field / field.std(), 0, 255).astype(np.uint8)


def test_the_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(0).normal(5, 2, 900)
    found = estimate(np.stack([values, np.ones_like(values)], 1), ratio)
    assert found.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 30
    assert found.value - found.low == pytest.approx(half, rel=0.2)
    assert found.high - found.value == pytest.approx(half, rel=0.2)


def test_one_block_has_no_interval():
    found = estimate(np.array([[6.0, 2.0]]), ratio)
    assert found.value == 3 and np.isnan(found.low) and np.isnan(found.high)


@given(height=st.integers(1, 9000), width=st.integers(1, 9000))
@settings(max_examples=15, deadline=None)
def test_a_tally_keeps_every_block_in_a_bounded_number_of_parts(height, width):
    area = Rect(7, -3, height, width)
    tally = Tally[str](area, least=BLOCK)
    for block in area.blocks(BLOCK):
        tally.add("pixels", block, np.array([block.height * block.width, 1.0]))
    total = tally.estimate("pixels", lambda sums: sums[0])
    assert total.value == height * width
    assert min(len(list(area.blocks(BLOCK))), ENOUGH_PARTS) <= total.parts < 4 * ENOUGH_PARTS
    assert tally.estimate("nothing", ratio).parts == 0


@pytest.mark.parametrize("sigma_um", [5, 20])
def test_the_interval_of_a_mean_is_as_wide_as_chance_where_texture_is_wide(sigma_um):
    """Of a plane of 1.6 x 1.6 mm, whose smallest parts are 25 um wide; cells of 16 pixels."""
    area, cell, found = Rect(0, 0, 4096, 4096), 16, []
    for seed in range(30):
        grain = np.random.default_rng(seed).standard_normal((256, 256))
        field = gaussian_filter(grain, sigma_um / (cell * 0.4), mode="wrap")
        tally = Tally[str](area, 25 / 0.4)
        for block in area.blocks(BLOCK):
            cut = field[Rect(*(edge // cell for edge in block)).within(Rect(0, 0, 256, 256))]
            tally.add("grey", block, np.array([cut.sum(), cut.size]))
        found.append(tally.estimate("grey", ratio))
    width = np.mean([one.high - one.low for one in found])
    assert width == pytest.approx(2 * 1.96 * np.std([one.value for one in found]), rel=0.3)


def test_correlation_of_summed_blocks_is_pearsons():
    a, b = texture(1), texture(2) // 2 + texture(1) // 2
    whole = Rect(0, 0, *a.shape)
    sums = [pair_sums(a[c], b[c]) for c in (block.within(whole) for block in whole.blocks(BLOCK))]
    assert correlation(np.sum(sums, 0)) == pytest.approx(pearsonr(a.ravel(), b.ravel())[0])


def test_identical_images_correlate_fully_and_negatives_not_at_all():
    a = texture(3)
    assert correlation(pair_sums(a, a)) == pytest.approx(1)
    assert correlation(pair_sums(a, 255 - a)) == pytest.approx(-1)


def test_shuffled_pixels_do_not_correlate():
    a = texture(4)
    shuffled = np.random.default_rng(5).permutation(a.ravel()).reshape(a.shape)
    assert abs(correlation(pair_sums(smooth(shuffled, 1), smooth(a, 1)))) < 0.1


@pytest.mark.parametrize("sigma", [2.0, 5.0])
def test_a_shift_costs_what_the_width_of_the_texture_says(sigma):
    """A Gaussian's correlation with itself d pixels further is exp(-d^2 / 4 s^2)."""
    found = []
    for seed in range(6):
        grain = np.random.default_rng(seed).standard_normal((256, 256))
        texture = smooth(grain, 3.0)
        pair = (smooth(image, sigma) for image in (texture, np.roll(texture, 4, axis=1)))
        found.append(correlation(pair_sums(*pair)))
    expected = np.exp(-(4**2) / (4 * (3.0**2 + sigma**2)))
    assert np.mean(found) == pytest.approx(expected, abs=0.02)


def test_a_constant_image_has_no_correlation():
    assert np.isnan(correlation(pair_sums(texture(6), np.full((256, 256), 7))))


def test_smoothing_knows_no_padding():
    """A constant stays what it is at the edges; zeros around it would darken them."""
    np.testing.assert_allclose(smooth(np.full((40, 60), 9), 5), 9, rtol=1e-5)


def test_a_brighter_copy_is_as_far_as_it_is_brighter():
    dark = np.clip(texture(7), 0, 200)
    levels, brighter = histogram(dark), histogram(dark + 30)
    assert wasserstein(np.append(brighter, levels)) == pytest.approx(30)
    assert wasserstein(np.append(levels, levels)) == 0


def test_blurring_takes_power_from_the_short_wavelengths_alone():
    grain = np.random.default_rng(8).integers(0, 256, (BLOCK, BLOCK)).astype(float)
    blurred = gaussian_filter(grain, 1.0, mode="wrap")
    sums = np.concatenate([spectrum_sums(i, 0.5) for i in (blurred, grain)])
    ratios = [log_power_ratio(band)(sums) for band in range(len(BANDS_UM) - 1)]
    assert ratios[0] < -0.4 and ratios[-1] == pytest.approx(0, abs=0.1)
    assert ratios == sorted(ratios)


def test_a_wave_has_its_power_in_its_band():
    x = np.arange(BLOCK) * 0.5
    wave = np.broadcast_to(100 + 50 * np.sin(2 * np.pi * x / 5.5), (BLOCK, BLOCK))
    power = spectrum_sums(wave, 0.5)
    assert power[1] > 0.95 * power.sum()  # 4 to 8 um


def test_power_does_not_depend_on_the_direction():
    """Stripes along y and along x, which a half of the plane of frequencies counts unequally."""
    stripes = np.random.default_rng(9).integers(0, 256, BLOCK)[:, None].repeat(BLOCK, 1)
    for image in (stripes, stripes + texture(9, (BLOCK, BLOCK))):
        np.testing.assert_allclose(spectrum_sums(image, 0.5), spectrum_sums(image.T, 0.5))


def disc_field(middles_um, *, radius_um=4.0, pixel=0.5, shape=(200, 240), grey=180):
    y, x = (np.indices(shape) + 0.5) * pixel
    image = np.full(shape, 10, np.uint8)
    for cy, cx in middles_um:
        image[(y - cy) ** 2 + (x - cx) ** 2 < radius_um**2] = grey
    return image


GRID = np.array([(y, x) for y in range(12, 95, 14) for x in range(12, 115, 14)], float)


def found_in(image, pixel=0.5):
    threshold = otsu(np.bincount(image.ravel(), minlength=256))
    return find_nuclei(image, pixel_size_um=pixel, threshold=threshold)


def test_discs_are_found_where_and_as_large_as_they_are():
    nuclei = found_in(disc_field(GRID))
    order = matched(nuclei.middles, GRID)
    assert sorted(order) == list(range(len(GRID)))
    np.testing.assert_allclose(nuclei.middles, GRID[order], atol=0.3)
    np.testing.assert_allclose(nuclei.diameters, 8, rtol=0.08)
    np.testing.assert_allclose(nuclei.greys, 180, rtol=0.06)
    np.testing.assert_allclose(nearest_neighbours_um(nuclei.middles), 14, atol=0.4)


def test_touching_discs_are_parted():
    nuclei = found_in(disc_field([(40, 40), (40, 46.5)]))
    assert len(nuclei.middles) == 2


def test_specks_and_empty_images_hold_no_nuclei():
    assert not len(found_in(disc_field([(40, 40)], radius_um=1)).middles)
    assert not len(found_in(np.full((50, 50), 90, np.uint8)).middles)


def nuclei_at(middles):
    middles = np.array(middles, float).reshape(-1, 2)
    return Nuclei(middles, np.ones(len(middles)), np.ones(len(middles)))


JUDGED = Rect(0, 0, 100, 120)


def f1_sums(made, real, *, area=JUDGED, edge=8):
    """Nuclei in pairs and all of them, block by block, with pixels of 1 um."""
    blocks = census(nuclei_at(made), nuclei_at(real), area=area, edge=edge, pixel_size_um=1.0)
    return np.array([sums["f1"] for _, sums in blocks])


def f1(made, real):
    return ratio(f1_sums(made, real).sum(0))


@pytest.mark.parametrize(("shift", "score"), [(0.0, 1.0), (3.0, 1.0), (MATCH_UM + 0.5, 0.0)])
def test_f1_tells_shifted_nuclei_by_the_distance(shift, score):
    assert f1(GRID + np.array([0, shift]), GRID) == score


def test_shuffled_nuclei_are_found_by_chance_alone():
    """A real one has a partner where one of those strewn at random lies within 4 um."""
    rng = np.random.default_rng(0)
    shuffled = [rng.random((len(GRID), 2)) * (100, 120) for _ in range(20)]
    chance = 1 - (1 - np.pi * MATCH_UM**2 / (100 * 120)) ** len(GRID)
    assert np.mean([f1(made, GRID) for made in shuffled]) == pytest.approx(chance, rel=0.2)


def test_a_real_nucleus_is_matched_once():
    made = np.array([(10.0, 10.0), (10.0, 12.0), (10.0, 15.5)])
    partners = matched(made, np.array([(10.0, 11.0), (10.0, 14.0)]))
    assert (partners >= 0).sum() == 2
    assert len({p for p in partners if p >= 0}) == 2


def test_f1_counts_what_is_missing_and_what_is_too_many():
    made = np.concatenate([GRID[:6], GRID[6:8] + 7])
    assert f1(made, GRID[:12]) == pytest.approx(2 * 0.75 * 0.5 / (0.75 + 0.5))


POINTS = st.lists(st.tuples(st.floats(0, 40), st.floats(0, 40)), max_size=12)


@given(made=POINTS, real=POINTS, edge=st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_no_block_holds_more_nuclei_in_pairs_than_nuclei(made, real, edge):
    area = Rect(5, 5, 30, 30)
    sums = f1_sums(made, real, area=area, edge=edge)
    swapped = f1_sums(real, made, area=area, edge=edge)
    assert (sums[:, 0] <= sums[:, 1]).all()
    assert (sums[:, 1] == swapped[:, 1]).all()
    assert sums[:, 0].sum() == swapped[:, 0].sum() and sums[:, 0].sum() % 2 == 0


def test_partners_on_either_side_of_an_edge_are_counted_where_they_lie():
    across_a_block = f1_sums([(9.5, 4)], [(10.5, 4)], area=Rect(0, 0, 20, 10), edge=10)
    assert across_a_block.tolist() == [[1, 1], [1, 1]]
    beyond_the_area = f1_sums([(9.5, 4)], [(10.5, 4)], area=Rect(0, 0, 10, 10), edge=10)
    assert beyond_the_area.tolist() == [[0, 1]]


def ratio_of(image, edge=32, origin=(0, 0), patch=32):
    whole = Rect(0, 0, *image.shape)
    return border_ratio(border_sums(image, whole, whole, edge=edge, origin=origin, patch=patch))


def test_borders_that_are_not_there_do_not_show():
    assert ratio_of(texture(9, (1024, 1024))) == pytest.approx(1, abs=0.05)


def test_planted_borders_show_where_they_are():
    image = texture(10, (512, 512))
    image[:, 7::64] = np.clip(image[:, 7::64].astype(int) + 40, 0, 255)
    assert ratio_of(image, 64, (0, 7)) > 1.5
    assert ratio_of(image, 64, (0, 30)) == pytest.approx(1, abs=0.3)


def test_a_step_has_the_energy_of_its_height():
    image = np.zeros((64, 64), np.uint8)
    image[:, 32:] = 10
    whole = Rect(0, 0, 64, 64)
    cells = {"edge": 32, "origin": (0, 0), "patch": 32}
    across, crossings, inside, _ = border_sums(image, whole, whole, **cells)
    assert across == 64 * 100 and crossings == 64 + 64 and inside == 0


@pytest.mark.parametrize("name", ["patch_border_ratio", "slab_border_ratio"])
def test_every_step_counts_once_whatever_the_tiles(name, monkeypatch):
    whole, scene = fine_scene(texture(12, (320, 288)))
    found = []
    for tile in (64, 1024):
        monkeypatch.setattr("teramind.evaluate.measure.TILE", tile)
        found.append({m.measure: m.value for m in scene.measures(whole)}[name])
    assert found[0] == found[1]


def test_borders_of_patches_do_not_hide_those_of_slabs():
    """What is across a slab's border is held against the inside of patches, not their borders."""
    image = texture(11, (512, 512))
    for shift, every in ((15, 32), (45, 128)):
        image[:, every::every] = np.clip(image[:, every::every].astype(int) + shift, 0, 255)
    patches, slabs = ratio_of(image, 32), ratio_of(image, 128)
    assert 1.2 < patches < slabs


def test_the_interval_of_a_correlation_is_as_wide_as_chance(monkeypatch):
    """Of images that share nothing, smoothed up to a block's width."""
    monkeypatch.setattr("teramind.evaluate.measure.SCALES_UM", scales := (2.0, 5.0, 10.0))
    whole, found = Rect(0, 0, 768, 768), []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        made, real = rng.integers(0, 255, (2, *whole[2:])).astype(np.uint8)
        scene = Scene(
            real=lambda rect, image=real: image[rect.within(whole)],
            subjects={"generated": lambda rect, image=made: image[rect.within(whole)]},
            stain="PolyT",
            pixel_size_um=0.4,
            whole=whole,
            finder=find_nuclei,
            lattice=Lattice(32, 256, (0, 0)),
        )
        found += takewhile(lambda m: m.measure == "correlation", scene.measures(whole))
    for scale in scales:
        these = [m for m in found if m.scale_um == scale]
        width = np.mean([m.high - m.low for m in these])
        assert width == pytest.approx(2 * 1.96 * np.std([m.value for m in these]), rel=0.3)


def fine_scene(made, real=None, pixel_size_um=0.1):
    whole = Rect(0, 0, *made.shape)
    return whole, Scene(
        real=(real is not None and (lambda rect: real[rect.within(whole)])) or None,
        subjects={"generated": lambda rect: made[rect.within(whole)]},
        stain="PolyT",
        pixel_size_um=pixel_size_um,
        whole=whole,
        finder=find_nuclei,
        lattice=Lattice(32, 256, (0, 0)),
    )


def test_parts_are_wider_than_texture_however_small_the_pixels():
    """Blobs of 3 um in pixels of 0.1 um: 64 pixels hold two of them."""
    found = []
    for seed in range(30):
        blobs = texture(seed, sigma=3.75).repeat(8, 0).repeat(8, 1)
        whole, scene = fine_scene(blobs)
        found.append(next(m for m in scene.measures(whole) if m.measure == "grey_mean"))
    width = np.mean([m.high - m.low for m in found])
    assert width == pytest.approx(2 * 1.96 * np.std([m.value for m in found]), rel=0.3)


def test_a_correlation_knows_the_area_that_is_judged_alone():
    """Tissue around a holdout is what the network learned from; smoothing must not read it."""
    real, unlike, judged = texture(1), texture(2), Rect(64, 64, 128, 128)
    made = real.copy()
    inside = judged.within(Rect(0, 0, *real.shape))
    made[inside] = unlike[inside]
    found = {}
    for name, image in (("learned around it", made), ("unlike everywhere", unlike)):
        _, scene = fine_scene(image, real, pixel_size_um=0.8)
        correlations = (m for m in scene.measures(judged) if m.measure == "correlation")
        found[name] = {m.scale_um: m.value for m in correlations}
    assert found["learned around it"] == found["unlike everywhere"]


def test_small_pixels_are_averaged_before_smoothing_and_it_does_not_show():
    rng = np.random.default_rng(5)
    shared, *own = (gaussian_filter(rng.standard_normal((700, 530)), 12) for _ in range(3))
    real, made = (np.clip(128 + 900 * (shared + part), 0, 255).astype(np.uint8) for part in own)
    whole, scene = fine_scene(made, real)
    found = {m.scale_um: m.value for m in scene.measures(whole) if m.measure == "correlation"}
    for scale in (2.0, 5.0):
        full = pearsonr(*(smooth(image, scale / 0.1).ravel() for image in (made, real))).statistic
        assert found[scale] == pytest.approx(full, abs=2e-3)


def test_every_band_of_wavelengths_has_a_power_however_small_the_pixels():
    image = np.random.default_rng(1).integers(0, 255, (600, 600)).astype(np.uint8)
    whole, scene = fine_scene(image, image)
    found = [m.value for m in scene.measures(whole) if m.measure == "log10_power_ratio"]
    assert found == [0.0] * (len(BANDS_UM) - 1)


def nuclear_measures(made, real, area=None):
    whole, scene = fine_scene(made, real, pixel_size_um=0.5)
    scene = replace(scene, stain="DAPI", finder=partial(find_nuclei, pixel_size_um=0.5))
    found = [m for m in scene.measures(area or whole) if m.measure.startswith("nuclei")]
    return {(m.subject, m.measure): m.value for m in found}


def test_tiles_do_not_change_the_nuclei(monkeypatch):
    """Also where nuclei and their partners lie on the edges of tiles."""
    rng = np.random.default_rng(3)
    made, real = (disc_field(GRID + rng.uniform(-3, 3, GRID.shape)) for _ in range(2))
    areas = None, Rect(30, 20, 111, 130)
    whole = [nuclear_measures(made, real, area) for area in areas]
    monkeypatch.setattr("teramind.evaluate.measure.TILE", 64)
    for area, found in zip(areas, whole, strict=True):
        assert nuclear_measures(made, real, area) == pytest.approx(found)
        assert 0.3 < found["generated", "nuclei_f1"] < 1


def test_half_of_the_nuclei_are_half_as_many_with_two_thirds_f1():
    found = nuclear_measures(disc_field(GRID[::2]), disc_field(GRID))
    for subject, number in (("generated", len(GRID) / 2), ("real", len(GRID))):
        assert found[subject, "nuclei_per_mm2"] == pytest.approx(number / (0.1 * 0.12))
        assert found[subject, "nuclei_diameter_um"] == pytest.approx(8, rel=0.08)
    assert found["generated", "nuclei_f1"] == pytest.approx(2 / 3)
    assert found["real", "nuclei_nearest_um"] == pytest.approx(14, abs=0.4)


def test_shuffled_pixels_keep_the_grey_levels_and_lose_the_texture():
    real = texture(13, sigma=6.0)
    made = np.random.default_rng(13).permutation(real.ravel()).reshape(real.shape)
    whole, scene = fine_scene(made, real, pixel_size_um=0.5)
    found = {(m.subject, m.measure, m.scale_um): m.value for m in scene.measures(whole)}
    assert abs(found["generated", "correlation", 2.0]) < 0.1
    assert found["generated", "log10_power_ratio", 2.0] > 0.5
    assert found["generated", "log10_power_ratio", 16.0] < -0.5
    by_name = {(subject, measure): value for (subject, measure, _), value in found.items()}
    assert by_name["generated", "wasserstein"] == 0
    for levels in ("grey_mean", "grey_deviation"):
        assert by_name["generated", levels] == by_name["real", levels]


def test_twice_the_contrast_is_four_times_the_power():
    real = texture(14) // 2
    whole, scene = fine_scene(2 * real, real, pixel_size_um=0.5)
    found = [m.value for m in scene.measures(whole) if m.measure == "log10_power_ratio"]
    assert found == pytest.approx([np.log10(4)] * (len(BANDS_UM) - 1))


def test_seams_of_one_lattice_show_in_the_generated_image_alone():
    """Of an area that starts inside a patch, in slabs that start elsewhere than the plane."""
    area, lattice = Rect(40, 24, 210, 190), Lattice(32, 64, (5, 9))
    real = texture(15)
    made = real.copy()
    made[:, 9 + 32 :: 64] = np.clip(made[:, 9 + 32 :: 64].astype(int) + 30, 0, 255)  # patches alone
    _, scene = fine_scene(made, real)
    found = replace(scene, lattice=lattice).measures(area)
    ratios = {(m.subject, m.measure): m.value for m in found if "border" in m.measure}
    assert ratios["generated", "patch_border_ratio"] > 2
    for other in (("generated", "slab"), ("real", "patch"), ("real", "slab")):
        assert ratios[other[0], f"{other[1]}_border_ratio"] == pytest.approx(1, abs=0.35)


def test_few_parts_have_no_interval():
    found = estimate(np.ones((15, 2)), ratio)
    assert found.value == 1 and np.isnan(found.low) and np.isnan(found.high)
