"""Where the gene branch starts training: it passes on the counts of every gene, where they lie.

The published branch has no residual path. From random weights its attention averages genes, its
norm forgets how many molecules there were, and its first convolution mixes what is left: of the
variance between bins of a phantom's images, a linear readout of its features explains 0.5 to 0.6,
of the counts 0.7. Here these parts start as near to the identity as their form allows, and it is
0.7 as well. The convolutions of the finer levels start random: with the identity there, too, clean
timesteps were learned worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teramind.network.blocks import upsample
from teramind.network.genes import GeneAttention
from teramind.network.spec import NetworkSpec
from teramind.network.unet import Network

SHARPNESS = 4.0
"""Weight of the queries' norm: exp(4^2) to 1 for a gene itself against one unlike it."""

FAINT = 0.3
"""Constant in the queries, so that genes without molecules attend to each other."""

MIXED = 0.3
"""Part of the random weights that are kept beside the identity."""


@torch.no_grad()
def wake_genes(network: Network, batches: Sequence[Tensor]) -> None:
    """Start the gene branch as described above, each channel with mean 0 and deviation 1.

    Memory: the attention's outputs for all batches, and the maps of one.

    Args:
        network: freshly made.
        batches: counts (n, bins, bins, S, G) of training patches to measure it on.
    """
    branch = network.genes
    attention, layers = branch.attention, list(branch.widen)
    grids = [counts.permute(0, 4, 3, 1, 2) for counts in batches]
    _pass_tokens(attention, network.spec, _root_mean_square(grids))
    _start_as_identity(attention.reduce)
    _standardise(attention.reduce, map(attention, grids))
    reduced = [attention(grid) for grid in grids]
    for k, layer in enumerate(layers):
        _standardise(layer, (layer(_read_after(layers[:k], maps)) for maps in reduced))


def _root_mean_square(grids: Sequence[Tensor]) -> Tensor:
    """Root mean square of the counts that are not zero."""
    squares = sum(float(grid.square().sum(dtype=torch.float64)) for grid in grids)
    return torch.tensor(squares / sum(int((grid > 0).sum()) for grid in grids)).sqrt()


def _read_after(layers: Sequence[nn.Module], reduced: Tensor) -> Tensor:
    """What the layer that follows `layers` reads of the attention's output."""
    features = upsample(reduced)
    for layer in layers:
        features = upsample(layer(F.silu(features)))
    return F.silu(features)


def _pass_tokens(attention: GeneAttention, spec: NetworkSpec, size: Tensor) -> None:
    """Let tokens pass attention, norm and MLP.

    A constant of `size`, the root mean square of counts, in one direction of the token holds up
    what the norm divides by: fewer counts pass in proportion, more are compressed. Counts are not
    heard in that direction.
    """
    width = spec.gene_token
    identity, carrier = torch.eye(width), _alternating(spec)
    heard = identity - torch.outer(carrier, carrier)
    for layer, weight in (
        (attention.query, identity),
        (attention.value, identity),
        (attention.project, heard),
    ):
        layer.weight.copy_(weight)
        layer.bias.zero_()
    attention.query_norm.weight.fill_(SHARPNESS)
    attention.query.bias.copy_(FAINT * carrier)
    attention.project.bias.copy_(size * width**0.5 * carrier)
    # gelu(u) - gelu(-u) = u
    for layer in (attention.mlp_in, attention.mlp_out):
        layer.weight *= MIXED
        layer.bias.zero_()
    attention.mlp_in.weight[: 2 * width] = torch.cat([heard, -heard])
    attention.mlp_out.weight[:, : 2 * width] = torch.cat([identity, -identity], 1)


def _alternating(spec: NetworkSpec) -> Tensor:
    """Direction of a token whose sign changes from bin to bin and section to section, length 1.

    Tissue has the least in it.
    """
    z, y, x = torch.meshgrid(
        *(torch.arange(n) for n in (spec.sections, spec.bins, spec.bins)), indexing="ij"
    )
    signs = (1 - 2 * ((z + y + x) % 2)).flatten().float()
    return signs / signs.norm()


def _start_as_identity(layer: nn.Conv3d) -> None:
    """Let a convolution pass its input; of the random weights the part `MIXED` is kept."""
    size, identity = layer.weight.norm(), torch.eye(layer.in_channels)
    z, y, x = (edge // 2 for edge in layer.kernel_size)
    layer.weight *= MIXED
    layer.weight[:, :, z, y, x] += identity * size / identity.norm()


def _standardise(layer: Any, outputs: Iterable[Tensor]) -> None:
    """Change weight and bias so that `outputs` (n, y, x, z, c) have mean 0, deviation 1."""
    number, total, squares = 0, torch.zeros(()), torch.zeros(())
    for output in outputs:
        rows = output.double().flatten(0, 3)
        number += len(rows)
        total, squares = total + rows.sum(0), squares + rows.square().sum(0)
    mean = total / number
    variance = (squares - number * mean.square()) / (number - 1)
    deviation = variance.clamp(min=1e-6).sqrt()
    layer.weight /= deviation[:, None, None, None, None]
    layer.bias.copy_((layer.bias - mean) / deviation)
