"""Which of the training's timesteps a sampling run keeps. Knows nothing of torch."""

from __future__ import annotations

from typing import Literal

from teramind.errors import UserError

TRAINING_STEPS = 1000

SolverName = Literal["published", "ddim", "dpm-solver++"]
"""How a step is taken; `teramind.engine.solver` computes it."""

MEMORY_PLANES: dict[SolverName, int] = {"published": 1, "ddim": 1, "dpm-solver++": 2}
"""How many times the channels of the state a solver's memory has."""


def kept_timesteps(steps: int) -> range:
    """Training timesteps of a `steps`-step run, ascending: the smallest stride that gives them.

    Raises:
        UserError: when no integer stride from 0 gives exactly this number of steps.
    """
    for stride in range(1, TRAINING_STEPS + 1):
        kept = range(0, TRAINING_STEPS, stride)
        if len(kept) == steps:
            return kept
    possible = {len(range(0, TRAINING_STEPS, s)) for s in range(1, TRAINING_STEPS + 1)}
    near = sorted(possible, key=lambda n: (abs(n - steps), n))[:2]
    raise UserError(
        f"steps: {steps} has no integer stride through {TRAINING_STEPS} timesteps; "
        f"the nearest that have one are {near[0]} and {near[1]}"
    )


def quadratic_timesteps(steps: int) -> list[int]:
    """Timesteps of a run of any length, ascending from 0 to the last one, denser near the image.

    They grow with the square of their number (arXiv 2010.02502, appendix D.2), at least by one.

    Raises:
        UserError: when there are not so many.
    """
    last = TRAINING_STEPS - 1
    if not 1 <= steps <= TRAINING_STEPS:
        raise UserError(f"steps: {steps}; must lie between 1 and {TRAINING_STEPS}")
    kept = [last] if steps == 1 else [0]
    for i in range(1, steps):
        kept.append(max(round(last * (i / (steps - 1)) ** 2), kept[-1] + 1))
    return kept


def timesteps(steps: int, solver: SolverName) -> list[int]:
    """The timesteps that a solver's run keeps, ascending. Raises UserError when there are none."""
    return list(kept_timesteps(steps)) if solver == "published" else quadratic_timesteps(steps)
