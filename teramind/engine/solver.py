"""From noise to image in few steps: the solvers of the diffusion's differential equation.

A solver works on each pixel alone: what it reads of other pixels it reads through the network. So
slabs and phases change nothing, as long as what it remembers goes along with the state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from teramind.schedule import MEMORY_PLANES, SolverName, timesteps
from teramind.variance import alphas_cumprod


class Step(NamedTuple):
    """One sampling step: training timestep, alpha-bar there, at the step after and the one before.

    `alpha_before` is None at the first step.
    """

    t: int
    alpha: float
    alpha_next: float
    alpha_before: float | None = None


def sampling_steps(steps: int, solver: SolverName = "published") -> list[Step]:
    """The run from noise to image: largest timestep first, alpha-bar 1 after the last.

    Raises:
        UserError: when the solver has no run of so many steps.
    """
    kept = timesteps(steps, solver)
    alphas = [float(a) for a in alphas_cumprod()[kept]]
    after, before = [1.0, *alphas[:-1]], [*alphas[1:], None]
    return [Step(*s) for s in zip(kept, alphas, after, before, strict=True)][::-1]


class Solver(NamedTuple):
    """How to take one step.

    Attributes:
        advance: (memory, noise estimate, step) -> memory after the step. The memory is (planes
            stain z, ...): the state, and behind it what the next step must know.
        planes: size of the memory, in states.
    """

    advance: Callable[[Tensor, Tensor, Step], Tensor]
    planes: int


def ddim(state: Tensor, noise: Tensor, step: Step) -> Tensor:
    """One deterministic step of DDIM (arXiv 2010.02502, equation 12, eta 0), images cut to [-1, 1].

    Args:
        state: x at `step.t`, any shape.
        noise: the network's estimate of the noise in it, same shape.
        step: where the run stands.
    """
    image = image_estimate(state, noise, step)
    noise = (state - step.alpha**0.5 * image) / (1 - step.alpha) ** 0.5
    return step.alpha_next**0.5 * image + (1 - step.alpha_next) ** 0.5 * noise


def image_estimate(state: Tensor, noise: Tensor, step: Step) -> Tensor:
    """The image that state and noise estimate amount to, cut to [-1, 1] as published."""
    return ((state - (1 - step.alpha) ** 0.5 * noise) / step.alpha**0.5).clamp(-1, 1)


def dpm_solver(memory: Tensor, noise: Tensor, step: Step) -> Tensor:
    """One step of DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2), images cut to [-1, 1].

    The first step has no image before it, and the last, which ends without noise, is an infinite
    stretch of log-SNR: both are of first order, and then it is the step of DDIM.

    Args:
        memory: (2 stain z, ...), the state and the image estimate of the step before.
        noise: (stain z, ...), the network's estimate.
        step: where the run stands.
    """
    state, before = memory.chunk(2)
    image = image_estimate(state, noise, step)
    towards = image
    if step.alpha_before is not None and step.alpha_next < 1:
        here, ahead = log_snr(step.alpha), log_snr(step.alpha_next)
        weight = (ahead - here) / (2 * (here - log_snr(step.alpha_before)))
        towards = (1 + weight) * image - weight * before
    shrink = ((1 - step.alpha_next) / (1 - step.alpha)) ** 0.5
    gain = step.alpha_next**0.5 - shrink * step.alpha**0.5
    return torch.cat([shrink * state + gain * towards, image])


def log_snr(alpha: float) -> float:
    """Half the logarithm of the signal-to-noise ratio, the time in which the solver is straight."""
    return 0.5 * math.log(alpha / (1 - alpha))


_ADVANCE: dict[SolverName, Callable[[Tensor, Tensor, Step], Tensor]] = {
    "published": ddim,
    "ddim": ddim,
    "dpm-solver++": dpm_solver,
}

SOLVERS = {name: Solver(advance, MEMORY_PLANES[name]) for name, advance in _ADVANCE.items()}
"""A solver's name in the config -> how it takes a step."""
