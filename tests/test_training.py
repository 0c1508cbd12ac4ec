"""Training sees paired windows, goes on where it was killed, and says what it made."""

import csv
import dataclasses
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teramind.dataset import PairedImages, TrainingWindows
from teramind.diffusion import alphas_cumprod, balanced_weight, window_loss
from teramind.errors import UserError
from teramind.expression.raster import Raster, RasterWriter
from teramind.geometry import BIN, EMPTY, Rect
from teramind.network import Network, NetworkSpec, load_network
from teramind.network.initial import start_as_copy, wake_genes
from teramind.train import SKIPPED_IN_A_ROW, Trainer, TrainSettings, rate_at, train

FIELD = Rect(0, 0, 128, 160)
SETTINGS = TrainSettings(steps=6, learning_rate=3e-3, warmup=3, save_minutes=60)


def write_raster(path, molecules, *, sections):
    """A raster of the field with molecules (section, y, x, gene, count)."""
    section, y, x, gene, count = np.array(molecules, int).reshape(-1, 5).T
    panel = ("Gad1", "Slc17a7", "Th")
    with RasterWriter(path, panel=panel, sections=sections, extent=FIELD) as writer:
        writer.add(section=section, y=y, x=x, gene=gene, count=count)
    return Raster.open(path)


def blobs():
    """Two sections that are bright where gene 0 is: images and molecules."""
    random = np.random.default_rng(4)
    bright = random.random((2, FIELD.height // BIN, FIELD.width // BIN)) < 0.4
    section, row, col = np.nonzero(bright)
    gene, count = np.zeros_like(row), random.integers(3, 9, len(row))
    molecules = np.stack([section, row * BIN, col * BIN, gene, count], 1)
    image = np.where(bright, 230, 15).repeat(BIN, 1).repeat(BIN, 2)
    return np.stack([image, 255 - image]).astype(np.uint8), molecules


def blob_windows(folder, spec, **changes):
    """Windows over the pair of `blobs`."""
    images, molecules = blobs()
    folder.mkdir(parents=True, exist_ok=True)
    raster = write_raster(folder / "raster", molecules, sections=2)
    options = {"edge": 2, "batch": 1, "holdout": None, "seed": 0} | changes
    return TrainingWindows(PairedImages(images, raster), spec, **options)


@pytest.fixture(scope="module")
def windows(tmp_path_factory, tiny_spec):
    return blob_windows(tmp_path_factory.mktemp("pair"), tiny_spec)


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_batch_depends_on_seed_and_step_alone(windows, tmp_path, tiny_spec):
    again = blob_windows(tmp_path / "again", tiny_spec)
    for step in (7, 0, 7, 3):
        assert equal(windows(step), again(step))
    assert not equal(windows(0), windows(1))
    assert not equal(windows(0), blob_windows(tmp_path / "other", tiny_spec, seed=1)(0))


def test_a_batch_has_the_shapes_that_the_loss_takes(tmp_path, tiny_spec):
    batch = blob_windows(tmp_path, tiny_spec, batch=2)(0)
    assert batch.image.shape == batch.noise.shape == (2, 4, 64, 64)
    assert batch.inside.shape == (2, 1, 64, 64)
    assert batch.counts.shape == (2, 4, 2, 2, 4, 3)
    assert ((batch.t >= 0) & (batch.t < 1000)).all()
    assert (batch.image.abs() <= 1).all()
    assert (batch.image[(~batch.inside).expand_as(batch.image)] == -1).all()


def test_windows_reach_half_a_patch_beyond_the_images_and_no_further(windows, tiny_spec):
    half = tiny_spec.half
    assert windows.places.min(0).tolist() == [-half, -half]
    ends = windows.places.max(0) + windows.size
    assert ends.tolist() == [FIELD.height + half, FIELD.width + half]


@given(
    rect=st.builds(
        Rect, st.integers(0, 120), st.integers(0, 150), st.integers(1, 30), st.integers(1, 30)
    )
)
@settings(max_examples=25, deadline=None)
def test_no_window_touches_the_holdout(windows, rect):
    pairs, spec = windows.pairs, windows.spec
    kept = TrainingWindows(pairs, spec, edge=2, batch=1, holdout=rect, seed=0).places
    free = [
        place
        for place in windows.places.tolist()
        if Rect(*place, windows.size, windows.size).cut(rect) == EMPTY
    ]
    assert kept.tolist() == free


def test_what_the_holdout_holds_is_never_seen(tmp_path, tiny_spec):
    holdout = Rect(0, 90, 128, 70)
    images = np.zeros((2, 2, FIELD.height, FIELD.width), np.uint8)
    images[:, :, holdout.y : holdout.bottom, holdout.x : holdout.right] = 255
    raster = write_raster(tmp_path / "raster", [], sections=2)
    pairs = PairedImages(images, raster)
    windows = TrainingWindows(pairs, tiny_spec, edge=2, batch=8, holdout=holdout, seed=0)
    assert all((windows(step).image == -1).all() for step in range(10))


def test_images_too_small_for_a_window_are_refused(windows, tiny_spec):
    for changes in ({"edge": 6}, {"holdout": FIELD}):
        options = {"edge": 2, "batch": 1, "holdout": None, "seed": 0} | changes
        with pytest.raises(
            UserError, match=r"no window of \d+ pixels fits the images \(128 x 160\)"
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
        TrainingWindows(pairs, spec, edge=2, batch=1, holdout=None, seed=0)


def test_images_and_counts_are_turned_together(tmp_path, tiny_spec):
    y, x, count = np.array([70, 35, 99]), np.array([51, 83, 115]), [5, 7, 9]
    section, stain, gene = np.array([0, 1, 1]), np.array([0, 1, 0]), np.array([2, 0, 1])
    images = np.zeros((2, 2, FIELD.height, FIELD.width), np.uint8)
    images[stain, section, y, x] = 255
    molecules = np.stack([section, y, x, gene, count], 1)
    pairs = PairedImages(images, write_raster(tmp_path / "raster", molecules, sections=2))
    windows = TrainingWindows(pairs, tiny_spec, edge=3, batch=4, holdout=None, seed=0)
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


def losses_on(network, batches):
    network.eval()
    with torch.inference_mode():
        return [window_loss(network, **batch._asdict()).item() for batch in batches]


def test_thirty_steps_lower_the_loss(windows, tiny_spec, tmp_path):
    fixed = [windows(step) for step in range(1000, 1006)]
    settings = dataclasses.replace(SETTINGS, steps=30, learning_rate=1e-2, ema=0.5)
    trainer = Trainer(tiny_spec, windows, settings, tmp_path)
    before = losses_on(trainer.averaged(), fixed)
    after = losses_on(trainer.run(), fixed)
    assert np.mean(after) < 0.95 * np.mean(before)


def test_the_rate_warms_up_and_falls_to_a_twentieth():
    settings = TrainSettings(steps=1000, warmup=100)
    assert rate_at(0, settings) == pytest.approx(0.01)
    assert rate_at(49, settings) == pytest.approx(0.5)
    assert rate_at(100, settings) == pytest.approx(1)
    assert rate_at(550, settings) == pytest.approx(0.525)
    assert rate_at(1000, settings) == pytest.approx(0.05)
    assert rate_at(5000, settings) == pytest.approx(0.05)
    rates = [rate_at(step, settings) for step in range(1001)]
    assert max(rates) == 1
    assert np.diff(rates[:100]).min() > 0 > np.diff(rates[100:]).max()
    assert rate_at(0, TrainSettings(steps=1, warmup=0)) == 1


def run_killed(folder, spec):
    """Train in a process of its own that saves at step 2 and is killed at step 4."""
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parent)]!r}
from test_training import SETTINGS, Trainer, blob_windows
from teramind.network import NetworkSpec

folder = Path({str(folder)!r})
windows = blob_windows(folder / "pair", NetworkSpec.from_dict({spec.to_dict()!r}))

class Deadly:
    batch = windows.batch
    armed = False
    def __call__(self, step):
        if self.armed and step == 2:
            trainer.save()
        if self.armed and step == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return windows(step)

trainer = Trainer(windows.spec, Deadly(), SETTINGS, folder / "train")
Deadly.armed = True
trainer.run()
"""
    return subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)


def test_a_killed_run_goes_on_as_if_undisturbed(windows, tiny_spec, tmp_path):
    undisturbed = Trainer(tiny_spec, windows, SETTINGS, tmp_path / "whole")
    expected = undisturbed.run()
    process = run_killed(tmp_path, tiny_spec)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    resumed = Trainer(tiny_spec, windows, SETTINGS, tmp_path / "train")
    assert resumed.step == 2
    network = resumed.run()
    assert [step for step, _ in resumed.losses] == list(range(SETTINGS.steps))
    np.testing.assert_allclose(resumed.losses, undisturbed.losses, rtol=1e-6)
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(network.state_dict()[key], value, rtol=1e-5, atol=1e-6)


def test_a_finished_run_stays_as_it_is(windows, tiny_spec, tmp_path):
    settings = dataclasses.replace(SETTINGS, steps=2)
    first = Trainer(tiny_spec, windows, settings, tmp_path)
    weights = first.run().state_dict()
    again = Trainer(tiny_spec, None, settings, tmp_path)
    assert all(torch.equal(v, weights[k]) for k, v in again.run().state_dict().items())
    assert again.losses == first.losses


def test_another_networks_state_is_refused(windows, tiny_spec, tmp_path):
    Trainer(tiny_spec, windows, SETTINGS, tmp_path).save()
    other = dataclasses.replace(tiny_spec, base=4)
    with pytest.raises(UserError, match=r"state\.pt: belongs to another network"):
        Trainer(other, windows, SETTINGS, tmp_path)


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"words"])
def test_an_unreadable_state_is_refused_in_one_line(windows, tiny_spec, tmp_path, spoil):
    Trainer(tiny_spec, windows, SETTINGS, tmp_path).save()
    state = tmp_path / "state.pt"
    state.write_bytes(spoil(state.read_bytes()))
    with pytest.raises(UserError, match=r"^training state .*not readable.*$") as error:
        Trainer(tiny_spec, windows, SETTINGS, tmp_path)
    assert "\n" not in str(error.value)


class Spoiled:
    """Windows whose image is NaN at some steps."""

    def __init__(self, windows, steps):
        self.windows, self.batch, self.steps = windows, windows.batch, steps

    def __call__(self, step):
        batch = self.windows(step)
        return batch._replace(image=batch.image * torch.nan) if step in self.steps else batch


def test_steps_without_finite_gradients_change_nothing(windows, tiny_spec, tmp_path):
    settings = dataclasses.replace(SETTINGS, steps=2)
    trainer = Trainer(tiny_spec, Spoiled(windows, {0, 1}), settings, tmp_path)
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    averaged = trainer.run().state_dict()
    for key, value in before.items():
        assert torch.equal(trainer.network.state_dict()[key], value)
        assert torch.equal(averaged[key], value)
    assert trainer.step == 2


def test_repeated_steps_without_finite_gradients_stop_the_run(windows, tiny_spec, tmp_path):
    settings = dataclasses.replace(SETTINGS, steps=20)
    bad = {0, 1} | set(range(3, 20))  # two, one good, then all
    trainer = Trainer(tiny_spec, Spoiled(windows, bad), settings, tmp_path)
    with pytest.raises(UserError, match=r"5 steps in a row .* lower train\.learning_rate$"):
        trainer.run()
    assert trainer.step == 2 + SKIPPED_IN_A_ROW


def test_training_leaves_a_checkpoint_that_says_how_it_was_made(windows, tiny_spec, tmp_path):
    checkpoint, table, picture = (tmp_path / n for n in ("c.safetensors", "loss.csv", "loss.png"))
    record = {"data": "two blobs", "steps": 3, "holdout": None}
    train(
        spec=tiny_spec,
        windows=windows,
        settings=dataclasses.replace(SETTINGS, steps=3),
        folder=tmp_path / "train",
        checkpoint=checkpoint,
        loss_table=table,
        loss_picture=picture,
        record=record,
        licence="CC0-1.0",
        dtype=torch.float16,
    )
    network = load_network(checkpoint)
    assert network.spec == dataclasses.replace(tiny_spec, training=record, licence="CC0-1.0")
    state = torch.load(tmp_path / "train" / "state.pt", weights_only=True)
    assert state["spec"] == tiny_spec.to_dict()
    for key, value in state["average"].items():
        assert torch.equal(network.state_dict()[key], value.half().float())
    with table.open(newline="") as file:
        rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    assert rows == state["losses"]
    assert picture.read_bytes().startswith(b"\x89PNG")


ROOMY = NetworkSpec(patch=32, sections=4, stains=("DAPI", "PolyT"), genes=3, base=6, embed=64)


def copying(spread: float = 0.3) -> Network:
    torch.manual_seed(0)
    network = Network(ROOMY).eval()
    start_as_copy(network, spread)
    return network


def test_training_starts_as_a_copy_of_the_noisy_image() -> None:
    state, counts = torch.randn(4, 4, 32, 32), torch.rand(4, 2, 2, 4, 3)
    with torch.inference_mode():
        _, aligned = copying().predict_noise(state, counts, 500, aligned=True)
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


def test_constant_images_are_learned_without_dividing_by_zero(tmp_path, tiny_spec) -> None:
    images = np.full((2, 2, FIELD.height, FIELD.width), 90, np.uint8)
    pairs = PairedImages(images, write_raster(tmp_path / "raster", [], sections=2))
    windows = TrainingWindows(pairs, tiny_spec, edge=2, batch=1, holdout=None, seed=0)
    trainer = Trainer(tiny_spec, windows, SETTINGS, tmp_path / "train")
    trainer.run()
    assert np.isfinite([loss for _, loss in trainer.losses]).all()


def test_gene_features_start_with_deviation_one() -> None:
    spec = NetworkSpec(patch=32, sections=4, stains=("DAPI",), genes=5, base=4, embed=8)
    torch.manual_seed(0)
    network = Network(spec).eval()
    counts = torch.poisson(torch.full((40, 2, 2, 4, 5), 3.0))
    wake_genes(network, counts)
    with torch.inference_mode():
        for level in network.genes(counts):
            deviation = level.std((0, 1, 3, 4))
            assert torch.allclose(deviation, torch.ones_like(deviation), atol=0.05)


@given(t=st.integers(0, 999), spread=st.floats(0.05, 1))
@settings(max_examples=30, deadline=None)
def test_the_best_estimate_from_a_pixel_alone_loses_one_at_every_timestep(t, spread) -> None:
    """Gaussian pixels have a closed answer: E[noise | x] is linear in x."""
    alpha = float(alphas_cumprod()[t])
    variance = alpha * spread**2 + 1 - alpha  # of x
    left = 1 - (1 - alpha) / variance  # of the noise, once x is known
    weight = balanced_weight(torch.tensor([t]), torch.tensor([spread])).item()
    assert weight * left == pytest.approx(1, rel=1e-3)


def test_a_weight_counts_for_its_window_and_stain() -> None:
    spec = NetworkSpec(patch=32, sections=4, stains=("DAPI", "PolyT"), genes=2, base=2, embed=4)
    torch.manual_seed(0)
    network = Network(spec).eval()
    window = {
        "image": torch.rand(2, 4, 64, 64),
        "inside": torch.ones(2, 1, 64, 64, dtype=torch.bool),
        "noise": torch.randn(2, 4, 64, 64),
        "counts": torch.rand(2, 4, 2, 2, 4, 2),
        "t": torch.tensor([10, 700]),
    }
    with torch.inference_mode():
        parts = torch.stack(
            [window_loss(network, **window, weight=one.view(2, 2)) for one in torch.eye(4)]
        )
        weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        both = window_loss(network, **window, weight=weight)
        plain = window_loss(network, **window)
    torch.testing.assert_close(both, (parts * weight.flatten()).sum())
    torch.testing.assert_close(plain, parts.sum())
    target = window["noise"][:, :, 16:-16, 16:-16]
    error = (target - predicted(network, window)).square().unflatten(1, (2, 2)).mean((2, 3, 4))
    torch.testing.assert_close(parts, error.flatten() / 4)


def predicted(network: Network, window: dict) -> torch.Tensor:
    """The noise that the network sees in each window on its own, (b, stain z, 32, 32)."""
    alpha = torch.from_numpy(alphas_cumprod())[window["t"]].float().view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * window["image"] + (1 - alpha).sqrt() * window["noise"]
    patches = noisy.unflatten(2, (2, 32)).unflatten(4, (2, 32)).permute(0, 2, 4, 1, 3, 5)
    parts = zip(patches.flatten(1, 2), window["counts"], window["t"].tolist(), strict=True)
    return torch.cat([network.predict_noise(state, counts, t) for state, counts, t in parts])
