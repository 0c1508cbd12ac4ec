"""The diffusion's mathematics: schedule, sampling step, grey levels and training loss."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plane_noise import predict_noise
from safetensors.torch import load_file
from torch.nn import functional as F

from teramind.engine.solver import Step, ddim, sampling_steps
from teramind.engine.state import to_grey
from teramind.errors import UserError
from teramind.network import Network, NetworkSpec, load_network
from teramind.schedule import TRAINING_STEPS, kept_timesteps
from teramind.training.objective import (
    add_noise,
    balanced_weight,
    to_patches,
    window_loss,
    worth_learning,
)
from teramind.variance import alphas_cumprod

STRIDES = {stride: range(0, TRAINING_STEPS, stride) for stride in range(1, TRAINING_STEPS + 1)}
POSSIBLE = {len(kept) for kept in STRIDES.values()}
IMPOSSIBLE = sorted(set(range(-2, 1100)) - POSSIBLE)


def normal(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_betas_rise_evenly_from_one_to_two_hundred_ten_thousandths():
    alphas = alphas_cumprod()
    betas = 1 - alphas / np.concatenate([[1], alphas[:-1]])
    assert alphas.dtype == np.float64
    np.testing.assert_allclose(betas[[0, -1]], [1e-4, 0.02], rtol=1e-9)
    np.testing.assert_allclose(np.diff(betas), (0.02 - 1e-4) / 999, rtol=1e-6)


def test_fifteen_steps_are_the_published_schedule(shared):
    chain = load_file(shared("goldens/z4_all_64_chain.safetensors"))
    steps = sampling_steps(15)[::-1]
    assert [step.t for step in steps] == chain["timesteps"].tolist()
    for values, name in (
        ([step.alpha for step in steps], "alphas_cumprod"),
        ([step.alpha_next for step in steps], "alphas_cumprod_prev"),
    ):
        np.testing.assert_allclose(values, chain[name], rtol=1e-12)


def test_a_run_goes_from_the_largest_timestep_to_the_image():
    steps = sampling_steps(15)
    assert [step.t for step in steps] == list(range(0, 1000, 67))[::-1]
    assert [step.alpha for step in steps[1:]] == [step.alpha_next for step in steps[:-1]]
    assert steps[-1].alpha_next == 1


@given(steps=st.sampled_from(sorted(POSSIBLE)))
@settings(max_examples=30)
def test_steps_are_kept_by_the_smallest_stride_that_gives_their_number(steps):
    assert kept_timesteps(steps) == next(k for k in STRIDES.values() if len(k) == steps)


@given(steps=st.sampled_from(IMPOSSIBLE))
@settings(max_examples=30)
def test_a_number_without_a_stride_is_refused_naming_the_two_nearest(steps):
    with pytest.raises(UserError) as error:
        kept_timesteps(steps)
    line = str(error.value)
    named = [int(word) for word in line.rpartition(" are ")[2].split(" and ")]
    assert "\n" not in line
    assert set(named) <= POSSIBLE
    assert len(set(named)) == 2
    farthest = max(abs(n - steps) for n in named)
    assert all(abs(n - steps) >= farthest for n in POSSIBLE - set(named))


@pytest.mark.parametrize("steps", [1, 2, 15, 50])
def test_perfect_noise_leads_back_to_the_image(steps):
    image, noise = normal(2, 8, 8, seed=1).clamp(-1, 1), normal(2, 8, 8, seed=2)
    run = sampling_steps(steps)
    state = run[0].alpha ** 0.5 * image + (1 - run[0].alpha) ** 0.5 * noise
    for step in run:
        state = ddim(state, noise, step)
        on_path = step.alpha_next**0.5 * image + (1 - step.alpha_next) ** 0.5 * noise
        torch.testing.assert_close(state, on_path, rtol=0, atol=1e-9)
    torch.testing.assert_close(state, image, rtol=0, atol=1e-9)


def test_the_image_estimate_is_cut_and_the_noise_follows_it():
    step = Step(t=500, alpha=0.64, alpha_next=0.75)
    state = torch.tensor([4.0, -4.0, 0.4], dtype=torch.float64)
    new = ddim(state, torch.zeros(3, dtype=torch.float64), step)
    image = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)
    noise = (state - 0.8 * image) / 0.6
    torch.testing.assert_close(new, 0.75**0.5 * image + 0.5 * noise)


def test_noise_is_added_at_each_images_own_timestep():
    image, noise = normal(3, 2, 4, 4, seed=3), normal(3, 2, 4, 4, seed=4)
    t = torch.tensor([0, 500, 999])
    for k, alpha in enumerate(alphas_cumprod()[t]):
        expected = alpha**0.5 * image[k] + (1 - alpha) ** 0.5 * noise[k]
        torch.testing.assert_close(add_noise(image, noise, t)[k], expected)


@given(state=st.floats(-3, 3, width=32))
def test_grey_levels_are_rounded_down_and_cut(state):
    (grey,) = to_grey(np.array([state], np.float32))
    exact = (np.float32(state) + 1) * np.float32(127.5)
    assert grey == (0 if exact < 0 else 255 if exact > 255 else int(exact))


def test_grey_levels_run_from_black_to_white_and_background_is_black():
    state = np.array([-np.inf, -1, 0, 1, np.inf, np.nan], np.float32)
    assert to_grey(state).tolist() == [0, 0, 127, 255, 255, 0]
    assert to_grey(state).dtype == np.uint8


def test_patches_are_cut_row_by_row():
    plane = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    patches = to_patches(plane, 2)
    assert patches.shape == (12, 3, 2, 2)
    assert torch.equal(patches[6 + 3 + 1], plane[1, :, 2:4, 2:4])


@pytest.mark.parametrize(("row", "col"), [(0, 0), (1, 2), (3, 3)])
def test_the_loss_is_the_published_one(goldens, shared, row, col):
    network = load_network(goldens / "z4_all_64_weights.safetensors")
    golden = load_file(shared("goldens/z4_all_64_loss.safetensors"))
    edge, half, bins = network.spec.patch, network.spec.half, network.spec.bins

    def window(plane, step):
        """Two by two patches of the padded plane (..., y, x), `step` pixels or bins apart."""
        return plane[..., row * step : (row + 2) * step, col * step : (col + 2) * step]

    image = F.pad(golden["image"].float(), [half] * 4)
    inside = F.pad(torch.ones(2, 1, 256, 256, dtype=torch.bool), [half] * 4)
    counts = F.pad(golden["counts"].float().permute(0, 3, 4, 1, 2), [bins // 2] * 4)
    patches = window(counts, bins).unflatten(4, (2, bins)).unflatten(3, (2, bins))
    loss = window_loss(
        network,
        image=window(image, edge),
        inside=window(inside, edge),
        noise=window(golden["noise_padded"].float(), edge),
        counts=patches.permute(0, 3, 5, 4, 6, 1, 2).flatten(1, 2),
        t=golden["t"],
        outside=0,
        aligned=True,
    )
    expected = golden[f"loss_{row}_{col}"].item()
    assert abs(loss.item() - expected) <= 1e-5 * expected


@pytest.mark.parametrize("outside", [0.0, -1.0])
def test_a_network_that_answers_zero_loses_the_noise_it_was_asked_for(
    tiny_network, monkeypatch, outside
):
    states = []

    def silent(state, counts, t, corners, *, aligned):
        states.append(state)
        return state.new_zeros(len(corners), *state.shape[1:]), 0 * state if aligned else None

    monkeypatch.setattr(tiny_network, "forward", silent)
    noise, inside = normal(2, 4, 96, 96, seed=5), torch.ones(2, 1, 96, 96, dtype=torch.bool)
    inside[0, :, :40] = False
    window = {
        "image": normal(2, 4, 96, 96, seed=6),
        "inside": inside,
        "noise": noise,
        "counts": torch.zeros(2, 9, 2, 2, 4, 3),
        "t": torch.tensor([10, 900]),
        "outside": outside,
    }
    shifted = noise[..., 16:-16, 16:-16].square().mean()
    torch.testing.assert_close(window_loss(tiny_network, **window), shifted)
    both = shifted + (noise.square() * inside).mean()
    torch.testing.assert_close(window_loss(tiny_network, **window, aligned=True), both)
    diffused = torch.where(inside, add_noise(window["image"], noise, window["t"]), outside)
    assert torch.equal(states[0], to_patches(diffused, 32))


def test_a_section_that_is_missing_is_seen_and_not_learned(tiny_network, monkeypatch):
    states = []

    def silent(state, counts, t, corners, *, aligned):
        states.append(state)
        return state.new_zeros(len(corners), *state.shape[1:]), 0 * state

    monkeypatch.setattr(tiny_network, "forward", silent)
    noise, image = normal(2, 4, 64, 64, seed=5), normal(2, 4, 64, 64, seed=6)
    inside = torch.ones(2, 4, 64, 64, dtype=torch.bool)
    inside[0, [1, 3]] = False  # the second section of both stains
    window = {"counts": torch.zeros(2, 4, 2, 2, 4, 3), "t": torch.tensor([10, 900])}
    window |= {"image": image, "noise": noise, "inside": inside}
    loss = window_loss(tiny_network, **window, aligned=True)
    assert torch.equal(states[0], to_patches(add_noise(image, noise, window["t"]), 32))
    parts = [noise[0, [0, 2]], noise[1]]
    expected = [part[..., 16:-16, 16:-16].square().mean() + part.square().mean() for part in parts]
    torch.testing.assert_close(loss, torch.stack(expected).mean())


@given(t=st.integers(0, 999), spread=st.floats(0.05, 1))
@settings(max_examples=30)
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
    return torch.cat([predict_noise(network, state, counts, t) for state, counts, t in parts])


def test_half_of_what_is_learned_is_more_signal_than_noise() -> None:
    drawn = worth_learning(torch.arange(1000)).numpy()
    level = np.log((1 - alphas_cumprod()) / alphas_cumprod())[drawn] / 2
    assert (np.diff(drawn) >= 0).all()
    assert np.median(level) == pytest.approx(0, abs=0.05)
    below, above = np.quantile(level, [0.1587, 0.8413])  # one standard deviation
    assert (below, above) == pytest.approx((-1.7, 1.7), abs=0.15)


def test_only_steps_of_the_error_across_borders_of_patches_count_as_such(
    tiny_network, monkeypatch
) -> None:
    """Patches end every 16 pixels: the shifted ones at 32, the aligned ones at 16 and 48."""
    error = torch.full((2, 4, 64, 64), 2.0)
    error[:, :, 5] += 7  # a row inside patches, from edge to edge
    error[:, :, 16:32, 32:48] += 1  # its edges are borders: 2 x 16 of 3 x 64 steps either way
    noise = normal(2, 4, 96, 96, seed=5)
    guess = to_patches(noise[..., 16:-16, 16:-16] - error, 32)
    monkeypatch.setattr(tiny_network, "forward", lambda *_, **__: (guess, None))
    window = {
        "image": normal(2, 4, 96, 96, seed=6),
        "inside": torch.ones(2, 1, 96, 96, dtype=torch.bool),
        "noise": noise,
        "counts": torch.zeros(2, 9, 2, 2, 4, 3),
        "t": torch.tensor([10, 900]),
        "weight": torch.tensor([[1.0, 3.0], [1.0, 3.0]]),
    }
    without = window_loss(tiny_network, **window)
    assert without.item() == pytest.approx(2 * error.square().mean().item(), rel=1e-5)
    with_borders = window_loss(tiny_network, **window, borders=3.0)
    assert (with_borders - without).item() == pytest.approx(3 * 2 * (32 / 192), rel=1e-4)
