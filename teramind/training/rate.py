"""How training is set, and the learning rate over its steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainSettings:
    """How to train; see the `train` section of the config for the meaning of each."""

    steps: int
    accumulate: int = 1
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup: int = 100
    clip: float = 1.0
    precision: str = "auto"
    ema: float = 0.999
    loss: str = "shifted"
    borders: float = 1.0
    dropout: float = 0.1
    seed: int = 0
    save_minutes: float = 5.0
    keep: int = 2
    minutes: float | None = None

    @property
    def lasting(self) -> dict[str, Any]:
        """What the weights depend on from the first step on: all but what `FREE` names."""
        return {key: value for key, value in vars(self).items() if key not in FREE}


FREE = {"steps", "accumulate", "save_minutes", "keep", "minutes"}
"""Settings that may change on the way: how long, in how many pieces, and what is saved when."""


def rate_at(step: int, settings: TrainSettings) -> float:
    """Learning rate at `step` as a part of the full one.

    Linear warm-up, then constant or along a cosine to 5 %.
    """
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return 1.0
    progress = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return 0.05 + 0.95 * (1 + math.cos(math.pi * min(progress, 1))) / 2
