"""The published sampling scheme, written plainly: what the engine is timed against.

Per tile of 256 pixels and step: the gene branch, the encoder and the decoder on all 25 aligned
patches, and the decoder again on the 16 shifted ones, with 3-D convolutions over channels-first
maps (patch, channel, z, y, x), the tile's patches together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teramind.network import Network
from teramind.network.blocks import SectionConv
from teramind.network.unet import collage, combine, plane_corners

TILE = 256
"""Edge of a published tile in pixels."""


class PlainConv(nn.Module):
    """A section convolution as a 3-D one over channels-first maps."""

    def __init__(self, conv: SectionConv) -> None:
        super().__init__()
        self.weight, self.bias, self.padding = conv.weight, conv.bias, conv.padding

    def forward(self, x: Tensor) -> Tensor:
        """(n, z, inputs, y, x) -> (n, z, outputs, y, x), views of channels-first maps."""
        padding: Any = self.padding
        return F.conv3d(x.transpose(1, 2), self.weight, self.bias, padding=padding).transpose(1, 2)


def make_plain(module: nn.Module) -> None:
    """Let every section convolution inside a module compute in 3-D."""
    for name, child in module.named_children():
        if isinstance(child, SectionConv):
            setattr(module, name, PlainConv(child))
        else:
            make_plain(child)


def patches_of_tile(patch: int) -> tuple[int, int]:
    """Aligned and shifted patches of one tile."""
    edge = TILE // patch
    return (edge + 1) ** 2, edge**2


def plain_step(network: Network, state: Tensor, counts: Tensor, t: int) -> Tensor:
    """The noise of a square plane of aligned patches, as the published sampler computes it.

    Args:
        network: made plain.
        state: (n, stain z, P, P).
        counts: (n, bins, bins, S, G).
        t: timestep.

    Returns:
        Noise of the shifted patches.
    """
    time = network.embed_time(torch.tensor([t]))
    encoded = network.encode(state, network.genes(counts), time)
    network.decode(encoded, time)  # the aligned output, which sampling never uses
    edge = round(len(state) ** 0.5)
    corners = plane_corners(edge, edge, state.device).unbind(1)
    shifted = combine(lambda maps: collage(*(maps[c] for c in corners)), encoded)
    return network.decode(shifted, time)
