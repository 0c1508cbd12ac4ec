"""The learning rate over the steps of a training."""

from __future__ import annotations

import math

from teramind.config import Train


def rate_at(step: int, settings: Train) -> float:
    """Learning rate at `step` as a part of the full one.

    Linear warm-up, then constant or along a cosine to 5 %.
    """
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return 1.0
    progress = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return 0.05 + 0.95 * (1 + math.cos(math.pi * min(progress, 1))) / 2
