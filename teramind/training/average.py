"""The moving average of the weights that training leaves behind."""

from __future__ import annotations

from torch import nn


class Average:
    """Exponential moving average of a network's weights, warmed up over the first steps."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in network.state_dict().items()}

    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the current weights after `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in network.state_dict().items():
            self.weights[key].lerp_(value, 1 - decay)
