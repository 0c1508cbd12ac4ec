"""Where training starts: a network that predicts its own input as the noise.

The published network has no path from input to output but through the norm before its head, so
from random weights it spends its first thousands of steps on learning to copy. Nearly all of a
noisy image is noise, so copying is the right first guess; what is left to learn is the image.
"""

from __future__ import annotations

from typing import Any

import torch

from teramind.network.unet import Network

CARRIER = 200.0
"""Constant in one channel that keeps the head's norm from bending the copied signal."""


@torch.no_grad()
def start_as_copy(network: Network) -> None:
    """Set stem, last block and head so that the estimate equals the noisy image.

    Channels 2 s and 2 s + 1 carry stain s and its negative: silu(u) - silu(-u) = u. The next one
    carries a constant. Networks with too few channels for that are left as they are.
    """
    stains, base = len(network.spec.stains), network.spec.base
    constant = 2 * stains
    if base <= constant:
        return
    stem: Any = network.stem
    head: Any = network.head
    block: Any = network.get_submodule("decoder.0.2.block")
    for module in (head, block.skip, block.conv_out):
        for parameter in module.parameters():
            parameter.zero_()
    stem.weight[:constant] = 0
    stem.bias[:constant] = 0
    block.skip.bias[constant] = CARRIER
    for stain in range(stains):
        for sign, channel in ((1, 2 * stain), (-1, 2 * stain + 1)):
            stem.weight[channel, stain, 0, 1, 1] = sign
            block.skip.weight[channel, base + channel] = 1  # the stem's output follows h
            head.weight[stain, channel, 0, 1, 1] = sign * CARRIER / base**0.5
