"""In which precision a network multiplies, in training and in inference."""

from __future__ import annotations

import torch
from torch import nn

from teramind.network.blocks import ResidualBlock


def set_precision(network: nn.Module, dtype: torch.dtype) -> None:
    """Let the convolutions of residual blocks, nearly all of the work, multiply in `dtype`.

    Norms, skips, stem and head stay as they are: what a rounding error of the noisy image costs
    there is divided by the square root of alpha-bar, 1/90 at the first step.
    """
    keep_float32()
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            for conv in (module.conv_in, module.conv_out):
                conv.lower = None if dtype == torch.float32 else dtype


def keep_float32() -> None:
    """Keep torch from rounding float32 to 10 bits on a GPU, which for convolutions it does."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
