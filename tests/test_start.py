"""Training starts at a copy of its input, better than a constant, with audible genes."""

import dataclasses

import numpy as np
import pytest
import torch
from plane_noise import predict_both
from training_pair import FIELD, SETTINGS, blob_windows, blobs, write_raster

from teramind.errors import UserError
from teramind.network import Network, NetworkSpec, load_network, save_network
from teramind.network.initial import Readout, copy_weights, start_as_copy
from teramind.network.initial_genes import wake_genes
from teramind.training.calibration import image_spread
from teramind.training.dataset import PairedImages, TrainingWindows
from teramind.training.objective import balanced_weight, window_loss
from teramind.training.trainer import Trainer
from teramind.variance import alphas_cumprod

ROOMY = NetworkSpec(patch=32, sections=4, stains=("DAPI", "PolyT"), genes=3, base=6, embed=64)


def copying(spread: float = 0.3) -> Network:
    torch.manual_seed(0)
    network = Network(ROOMY).eval()
    start_as_copy(network, spread)
    return network


def test_training_starts_as_a_copy_of_the_noisy_image() -> None:
    state, counts = torch.randn(4, 4, 32, 32), torch.rand(4, 2, 2, 4, 3)
    with torch.inference_mode():
        _, aligned = predict_both(copying(), state, counts, 500)
    assert (aligned - state).abs().max() < 0.01


@pytest.mark.parametrize("spread", [0.1, 0.5])
def test_what_training_adds_to_the_copy_has_the_scale_of_an_error_worth_one(spread) -> None:
    network = copying(spread)
    layer = network.get_submodule("decoder.0.2.block.time")
    t = torch.arange(0, 900, 50)
    with torch.inference_mode():
        scale = 1 + layer(torch.nn.functional.silu(network.embed_time(t)))[:, 0]
    expected = balanced_weight(t, torch.tensor([spread]))[:, 0].rsqrt()
    torch.testing.assert_close(scale, expected, rtol=0.1, atol=0)


def test_the_time_embedding_starts_smooth_and_of_deviation_one() -> None:
    with torch.inference_mode():
        embedding = copying().embed_time(torch.arange(1000))
    torch.testing.assert_close(embedding.mean(0), torch.zeros(64), rtol=0, atol=1e-4)
    torch.testing.assert_close(embedding.std(0), torch.ones(64), rtol=1e-3, atol=0)
    assert embedding.diff(dim=0).abs().max() < 0.1


def test_training_starts_better_than_any_constant_image(tmp_path) -> None:
    windows = blob_windows(tmp_path, dataclasses.replace(ROOMY, panel=()), batch=2)
    trainer = Trainer(windows.spec, windows, SETTINGS, tmp_path / "train")
    network = trainer.network.eval()
    gained = []
    for step in range(16):
        batch = windows(step)
        weight = balanced_weight(batch.t, trainer.spread)
        with torch.inference_mode():
            loss = window_loss(network, **batch._asdict(), weight=weight)
        # With the mean for an image, the error of the noise is a / (1 - a) times the variance.
        alpha = torch.from_numpy(alphas_cumprod())[batch.t][:, None]
        constant = weight * alpha / (1 - alpha) * trainer.spread.square()
        gained.append(loss.item() / constant.mean().item())
    assert np.median(gained) < 0.9


def test_storing_half_the_precision_hardly_changes_an_estimate_at_any_timestep(tmp_path) -> None:
    """At t = 999 a noise estimate that is wrong by 1e-2 is an image that is wrong by 150 %."""
    windows = blob_windows(tmp_path, dataclasses.replace(ROOMY, panel=()), batch=2)
    trainer = Trainer(windows.spec, windows, SETTINGS, tmp_path / "train")
    network = trainer.run().eval()
    path = tmp_path / "half.safetensors"
    save_network(network, path, dtype=torch.float16, exact=copy_weights(network))
    stored, batch = load_network(path), windows(7)
    for t in (0, 300, 600, 900, 999):
        at = batch._replace(t=torch.full_like(batch.t, t))._asdict()
        weight = balanced_weight(at["t"], trainer.spread)
        with torch.inference_mode():
            before = window_loss(network, **at, weight=weight)
            after = window_loss(stored, **at, weight=weight)
        assert after.item() == pytest.approx(before.item(), rel=0.02), t


def test_what_carries_the_copy_stays_as_it_is_while_the_rest_learns(tmp_path) -> None:
    windows = blob_windows(tmp_path, dataclasses.replace(ROOMY, panel=()))
    trainer = Trainer(windows.spec, windows, SETTINGS, tmp_path / "train")
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    after = trainer.run().state_dict()
    fixed = ("stem.", "head", "time_", "decoder.0.2.block.skip.", "decoder.0.2.block.time.")
    for key, value in before.items():
        carries = key.startswith(fixed) or key == "decoder.0.2.block.conv_out.bias"
        assert torch.equal(after[key], value) == carries, key


def test_the_spread_is_that_of_the_images(windows, tiny_spec, tmp_path) -> None:
    trainer = Trainer(tiny_spec, windows, SETTINGS, tmp_path)
    images = np.asarray(windows.pairs.images) / 127.5 - 1
    assert trainer.spread.numpy() == pytest.approx(images.std((1, 2, 3)), rel=0.05)


def test_the_spread_of_a_stack_that_ends_within_the_windows_is_that_of_its_images(
    tmp_path, tiny_spec
) -> None:
    images, molecules = blobs()
    raster = write_raster(tmp_path / "raster", molecules[molecules[:, 0] == 0], sections=1)
    pairs = PairedImages(images[:, :1], raster)
    windows = TrainingWindows(pairs, tiny_spec, edge=2, batch=4, seed=0)
    expected = (images[:, :1] / 127.5 - 1).std((1, 2, 3))
    assert image_spread(windows, tiny_spec.stains).numpy() == pytest.approx(expected, rel=0.05)


def test_the_readout_looks_away_from_sections_that_are_missing(tiny_spec) -> None:
    torch.manual_seed(0)
    network = Network(ROOMY)
    maps, missing = torch.randn(3, 8, 8, 2, 6), torch.randn(3, 4, 8, 8)
    other = missing.unflatten(1, (2, 2)).clone()
    other[:, :, 1] = 9
    kernels = []
    for wanted in (missing, other.flatten(1, 2)):
        readout = Readout(network)
        readout.add(maps, wanted, torch.tensor([[True, False]] * 3), weight=1)
        readout.set()
        kernels.append(readout.layer.weight.clone())
    assert torch.equal(*kernels)


def test_constant_images_are_refused(tmp_path, tiny_spec) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 2, FIELD.height, FIELD.width))
    images[1] = 90
    raster = write_raster(tmp_path / "raster", [[0, 5, 5, 0, 3]], sections=2)
    pairs = PairedImages(images.astype(np.uint8), raster)
    windows = TrainingWindows(pairs, tiny_spec, edge=2, batch=1, seed=0)
    with pytest.raises(UserError, match=r"^training: the images of PolyT are constant"):
        Trainer(tiny_spec, windows, SETTINGS, tmp_path / "train")


def test_images_without_a_molecule_under_them_are_refused(tmp_path, tiny_spec) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 2, FIELD.height, FIELD.width))
    raster = write_raster(tmp_path / "raster", [], sections=2)
    pairs = PairedImages(images.astype(np.uint8), raster)
    windows = TrainingWindows(pairs, tiny_spec, edge=2, batch=1, seed=0)
    with pytest.raises(UserError, match=r"^training: no molecule lies under the images"):
        Trainer(tiny_spec, windows, SETTINGS, tmp_path / "train")


def test_gene_features_start_with_deviation_one() -> None:
    spec = NetworkSpec(patch=32, sections=4, stains=("DAPI",), genes=5, base=4, embed=8)
    torch.manual_seed(0)
    network = Network(spec).eval()
    counts = torch.poisson(torch.full((40, 2, 2, 4, 5), 3.0))
    wake_genes(network, [counts])
    with torch.inference_mode():
        for level in network.genes(counts):
            deviation = level.std((0, 1, 2, 3))
            assert torch.allclose(deviation, torch.ones_like(deviation), atol=0.05)


def test_gene_features_start_alike_however_the_patches_are_batched() -> None:
    spec = NetworkSpec(patch=32, sections=4, stains=("DAPI",), genes=5, base=4, embed=8)
    density = torch.linspace(0, 4, 20).view(20, 1, 1, 1, 1)  # differs from batch to batch
    counts = torch.poisson(density.expand(20, 2, 2, 4, 5))
    weights = []
    for batches in ([counts], counts.split(7)):
        torch.manual_seed(0)
        network = Network(spec).eval()
        wake_genes(network, batches)
        weights.append(network.genes.state_dict())
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value)


def test_gene_features_start_with_the_counts_of_every_gene_where_they_lie() -> None:
    """A line through the features of a bin explains the counts there; random weights lose them."""
    spec = NetworkSpec(patch=64, sections=4, stains=("DAPI",), genes=12, base=4, embed=8)
    torch.manual_seed(0)
    network, random = Network(spec).eval(), Network(spec).eval()
    level = torch.randn(200, 1, 1, 1, 12)  # genes vary from patch to patch more than within
    counts = torch.poisson((level + 0.5 * torch.randn(200, 4, 4, 4, 12)).exp())
    wake_genes(network, [counts])
    middle = counts[:, :, :, 1:3]
    assert explained(network.genes(counts)[3], middle) > 0.75
    assert explained(random.genes(counts)[3], middle) < 0.05


@torch.no_grad()
def explained(features: torch.Tensor, counts: torch.Tensor) -> float:
    """Part of the variance of log counts (n, bins, bins, z, G) that is linear in features there."""
    each = features.shape[1] // counts.shape[1]
    middles = features[:, each // 2 :: each, each // 2 :: each].flatten(0, 3)
    known = torch.cat([middles, torch.ones(len(middles), 1)], 1)
    wanted = counts.flatten(0, 3).log1p()
    left = wanted - known @ torch.linalg.lstsq(known, wanted).solution
    return 1 - float(left.var(0).sum() / wanted.var(0).sum())
