"""Which of the training's timesteps a sampling run keeps. Knows nothing of torch."""

from __future__ import annotations

from teramind.errors import UserError

TRAINING_STEPS = 1000


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
