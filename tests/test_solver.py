"""Solvers: of the order they claim, exact where the answer is known, and the same in any layout."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generate import LAYOUTS, P, make_generator, precise, run_slabs  # noqa: F401 - a fixture

from teramind.engine.solver import SOLVERS, Step, sampling_steps
from teramind.errors import UserError
from teramind.schedule import TRAINING_STEPS

SPREAD = 0.05
"""Standard deviation of the Gaussian images whose solution is known; far from the cut at 1."""

NAMES = sorted(SOLVERS)


def alpha_at(log_snr):
    return 1 / (1 + np.exp(-2 * log_snr))


def deviation(alpha):
    """Standard deviation of noisy images of deviation SPREAD."""
    return (alpha * SPREAD**2 + 1 - alpha) ** 0.5


def steps_in_log_snr(n, first=-3.0, last=3.0):
    """n steps that end before the noise does, evenly spread in log-SNR."""
    alphas = [float(a) for a in alpha_at(np.linspace(first, last, n + 1))]
    before = [None, *alphas[:-2]]
    return [Step(0, a, b, c) for a, b, c in zip(alphas, alphas[1:], before, strict=False)]


def solve(name, steps, start):
    """Run a solver on the Gaussian, whose best noise estimate is linear in the state."""
    solver = SOLVERS[name]
    memory = torch.cat([start, *[torch.full_like(start, torch.nan)] * (solver.planes - 1)])
    for step in steps:
        state = memory[: len(start)]
        noise = (1 - step.alpha) ** 0.5 / deviation(step.alpha) ** 2 * state
        memory = solver.advance(memory, noise, step)
    return memory[: len(start)]


def error(name, steps):
    """Distance from the known solution: states keep their rank among the Gaussian's."""
    start = torch.linspace(-2, 2, 5, dtype=torch.float64) * deviation(steps[0].alpha)
    exact = start * deviation(steps[-1].alpha_next) / deviation(steps[0].alpha)
    return (solve(name, steps, start) - exact).abs().max().item()


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm-solver++", 2)])
def test_the_error_falls_with_the_order_of_the_solver(name, order):
    errors = [error(name, steps_in_log_snr(n)) for n in (64, 128, 256)]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, order, atol=0.15)


@pytest.mark.parametrize("name", ["ddim", "dpm-solver++"])
@pytest.mark.parametrize("steps", [1, 2, 15])
def test_perfect_noise_leads_back_to_the_image(name, steps):
    random = torch.Generator().manual_seed(0)
    image = torch.rand(2, 8, 8, generator=random, dtype=torch.float64) * 2 - 1
    noise = torch.randn(2, 8, 8, generator=random, dtype=torch.float64)
    run, solver = sampling_steps(steps, name), SOLVERS[name]
    memory = run[0].alpha ** 0.5 * image + (1 - run[0].alpha) ** 0.5 * noise
    memory = torch.cat([memory] * solver.planes)
    for step in run:
        memory = solver.advance(memory, noise, step)
    torch.testing.assert_close(memory[:2], image, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["ddim", "dpm-solver++"])
@given(steps=st.integers(1, TRAINING_STEPS))
@settings(max_examples=30)
def test_any_number_of_steps_falls_to_the_image_in_ever_smaller_ones(name, steps):
    run = sampling_steps(steps, name)
    times = [step.t for step in run]
    assert len(times) == steps
    assert times[0] == TRAINING_STEPS - 1
    assert times[-1] == 0 or steps == 1
    gaps = -np.diff(times)
    assert (gaps > 0).all()
    assert (np.diff(gaps) <= 1).all()  # up to rounding to whole timesteps
    assert [step.alpha for step in run[1:]] == [step.alpha_next for step in run[:-1]]
    assert [step.alpha_before for step in run] == [None, *[step.alpha for step in run[:-1]]]
    assert run[-1].alpha_next == 1


@pytest.mark.parametrize("steps", [0, -1, TRAINING_STEPS + 1])
def test_a_number_of_steps_that_does_not_exist_is_refused(steps):
    with pytest.raises(UserError, match=f"steps: {steps}; must lie between 1 and 1000"):
        sampling_steps(steps, "ddim")


@pytest.mark.parametrize("name", ["2 x 3 slabs, 3 phases", "region, 3 phases"])
def test_a_solver_that_remembers_is_the_same_in_any_layout(precise, name):  # noqa: F811
    region, slab, phases = LAYOUTS[name]
    late = sampling_steps(25, "dpm-solver++")[-4:]
    multistep = {
        "solver": SOLVERS["dpm-solver++"],
        "schedule": [late[0]._replace(alpha_before=None), *late[1:]],
        "region": region,
    }
    whole = run_slabs(make_generator(precise, **multistep))
    parts = run_slabs(make_generator(precise, slab=slab * P, phases=phases, **multistep))
    assert parts.shape == whole.shape
    assert np.abs(parts - whole).max() < 1e-9
