"""Where training starts: the network copies its input to its estimate, and sees the genes.

The published network has no path from input to output but through the norm before its head, so
from random weights it spends its first thousands of steps on learning to copy. Nearly all of a
noisy image is noise, so copying is the right first guess; what is left to learn is the image. And
its gene features start some hundred times fainter than the image they are normed with.
"""

from __future__ import annotations

from typing import Any

import torch

from torch import Tensor
from torch.nn import functional as F

from teramind.network.blocks import upsample
from teramind.network.unet import Network

CARRIER = 200.0
"""Constant in one channel that keeps the head's norm from bending the copied signal."""

SHARPNESS = 2.2
"""Initial weight of the gene queries' norm: a gene attends mostly to itself, exp(2.2^2) to 1."""


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


@torch.no_grad()
def wake_genes(network: Network, counts: Tensor) -> None:
    """Scale the gene branch so that every channel of its features has mean 0 and deviation 1.

    Args:
        network: freshly made.
        counts: (n, bins, bins, S, G) of training patches to measure it on.
    """
    branch = network.genes
    attention = branch.attention
    attention.query_norm.weight.fill_(SHARPNESS)
    grid = counts.permute(0, 4, 3, 1, 2)
    _standardise(attention.reduce, attention(grid))
    features = upsample(attention(grid))
    for layer in branch.widen:
        _standardise(layer, layer(F.silu(features)))
        features = upsample(layer(F.silu(features)))


def _standardise(layer: Any, output: Tensor) -> None:
    """Change weight and bias so that `output` (n, z, c, y, x) of `layer` gets mean 0, deviation 1."""
    mean, deviation = output.mean((0, 1, 3, 4)), output.std((0, 1, 3, 4)).clamp(min=1e-3)
    layer.weight /= deviation[:, None, None, None, None]
    layer.bias.copy_((layer.bias - mean) / deviation)
