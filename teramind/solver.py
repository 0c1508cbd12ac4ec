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

from teramind.diffusion import Step, ddim, image_estimate
from teramind.schedule import MEMORY_PLANES, SolverName


class Solver(NamedTuple):
    """How to take one step.

    Attributes:
        advance: (memory, noise estimate, step) -> memory after the step. The memory is (planes
            stain z, ...): the state, and behind it what the next step must know.
        planes: how many times the channels of the state the memory has.
    """

    advance: Callable[[Tensor, Tensor, Step], Tensor]
    planes: int


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


SOLVERS: dict[SolverName, Solver] = {
    "published": Solver(ddim, MEMORY_PLANES["published"]),
    "ddim": Solver(ddim, MEMORY_PLANES["ddim"]),
    "dpm-solver++": Solver(dpm_solver, MEMORY_PLANES["dpm-solver++"]),
}
