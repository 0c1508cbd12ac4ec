"""Where training starts: a network that copies its input, minds the noise level, sees the genes.

The published network has no path from input to output but through the norm before its head, and
its estimate must be exact to 1 % where noise is nearly all there is. From random weights that
takes it many thousands of steps. Here the estimate starts as x + sqrt(alpha) g, where x is the
noisy image and g what the last block adds. Then an error of g weighs the same at every timestep,
as for a network that predicts the velocity (arXiv 2202.00512), in the published architecture.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from teramind.network.blocks import upsample
from teramind.network.unet import Network, sinusoid
from teramind.schedule import TRAINING_STEPS
from teramind.variance import alphas_cumprod

CARRIER = 200.0
"""Constant in one channel that keeps the head's norm from bending the copied signal."""

SMOOTH = 0.01
"""Largest change from one timestep to the next of a wave that the time embedding keeps."""

SHARPNESS = 2.2
"""Initial weight of the gene queries' norm: a gene attends mostly to itself, exp(2.2^2) to 1."""


@torch.no_grad()
def start_as_copy(network: Network) -> None:
    """Set and freeze the path of x, and the last block's fading with sqrt(alpha); g starts at 0.

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
    _fade(network, block.time)
    fixed = (stem, head, network.head_norm, block.skip, block.time)
    for module in (*fixed, network.time_in, network.time_out):
        module.requires_grad_(False)
    block.conv_out.bias.requires_grad_(False)


def _fade(network: Network, layer: Any) -> None:
    """Fit the time layer of the last block to scale by sqrt(alpha-bar(t)), shift by nothing.

    The time embedding loses its waves that repeat within the run: what is fixed must be smooth.
    """
    _, waves = sinusoid(torch.arange(TRAINING_STEPS), network.spec.base).chunk(2, 1)
    fast = waves.diff(dim=0).abs().amax(0) > SMOOTH
    network.time_in.weight[:, fast.repeat(2)] = 0
    alphas = torch.from_numpy(alphas_cumprod()).sqrt()
    features = F.silu(network.embed_time(torch.arange(len(alphas)))).double()
    inputs = torch.cat([features, torch.ones(len(features), 1).double()], 1)
    fitted = (
        torch.linalg.lstsq(inputs, (alphas - 1)[:, None], driver="gelsd").solution[:, 0].float()
    )
    outputs = layer.out_features // 2
    layer.weight.zero_()
    layer.bias.zero_()
    layer.weight[:outputs] = fitted[:-1]
    layer.bias[:outputs] = fitted[-1]


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
    """Change weight and bias so that `output` (n, z, c, y, x) has mean 0, deviation 1."""
    mean, deviation = output.mean((0, 1, 3, 4)), output.std((0, 1, 3, 4)).clamp(min=1e-3)
    layer.weight /= deviation[:, None, None, None, None]
    layer.bias.copy_((layer.bias - mean) / deviation)
