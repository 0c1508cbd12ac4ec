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

from teramind.network.blocks import ResidualBlock, SectionConv
from teramind.network.norm import EPSILON, ChannelNorm
from teramind.network.unet import LEVELS, Axes, Encoded

TILE = 256
"""Edge of a published tile in pixels."""


def patches_of_tile(patch: int) -> tuple[int, int]:
    """Aligned and shifted patches of one tile."""
    edge = TILE // patch
    return (edge + 1) ** 2, edge**2


class PlainNetwork:
    """The three passes of a `Network`, with its weights, over maps (n, c, z, y, x)."""

    axes = Axes(patch=0, y=3, x=4)

    def __init__(self, network: Any) -> None:
        self.network, self.spec, self.embed_time = network, network.spec, network.embed_time

    def genes(self, counts: Tensor) -> list[Tensor]:
        """(n, bins, bins, S, G) counts -> features of levels 0..3."""
        branch = self.network.genes
        features = [upsample(channels_first(branch.attention(counts.permute(0, 4, 3, 1, 2))))]
        for layer in branch.widen:
            features.append(upsample(convolve(layer, F.silu(features[-1]))))
        return features[::-1]

    def encode(self, state: Tensor, genes: list[Tensor], time: Tensor) -> Encoded:
        """Features of aligned patches (n, stain z, P, P)."""
        network, skips = self.network, []
        h = convolve(network.stem, state.unflatten(1, (len(self.spec.stains), -1)))
        for level, blocks in enumerate(network.encoder):
            kept = [h]
            for block in blocks:
                h = conditioned(block, [h], genes[level], time)
                kept.append(h)
            skips.append(kept)
            if level < LEVELS - 1:
                h = residual(network.down[level], h, time)
        h = residual(network.middle_out, conditioned(network.middle_in, [h], genes[3], time), time)
        return Encoded(h, skips, genes)

    def decode(self, encoded: Encoded, time: Tensor) -> Tensor:
        """Noise estimate of the patches in `encoded`: (n, stain z, P, P)."""
        network, h = self.network, encoded.middle
        for level in reversed(range(LEVELS)):
            skips = encoded.skips[level][::-1]
            for block, skip in zip(network.decoder[level], skips, strict=True):
                h = conditioned(block, [h, skip], encoded.genes[level], time)
            if level:
                h = residual(network.up[level - 1], h, time)
        return convolve(network.head, F.silu(norm(network.head_norm, h))).flatten(1, 2)


def conditioned(module: Any, maps: list[Tensor], genes: Tensor, time: Tensor) -> Tensor:
    """A residual block that also reads gene features, and image attention where it stands."""
    h = residual(module.block, torch.cat([*maps, genes], 1), time)
    if module.attention is None:
        return h
    return channels_first(module.attention(channels_last(h), channels_last(genes)))


def residual(block: ResidualBlock, x: Tensor, time: Tensor) -> Tensor:
    """Two convolutions with the time step between them, and a skip."""
    h = F.silu(norm(block.norm_in, x))
    if block.resample:
        resize = upsample if block.resample == "up" else downsample
        h, x = resize(h), resize(x)
    h = convolve(block.conv_in, h)
    scale, shift = block.time(F.silu(time))[:, :, None, None, None].chunk(2, 1)
    h = convolve(block.conv_out, F.silu(norm(block.norm_out, h) * (1 + scale) + shift))
    return h + (convolve(block.skip, x) if isinstance(block.skip, nn.Conv3d) else x)


def norm(module: ChannelNorm, x: Tensor) -> Tensor:
    """Root-mean-square norm over channels."""
    scale = torch.rsqrt(x.square().mean(1, keepdim=True) + EPSILON)
    return x * scale * module.weight[:, None, None, None]


def convolve(conv: SectionConv, x: Tensor) -> Tensor:
    """3-D convolution, zeros beyond the patch."""
    padding: Any = conv.padding
    return F.conv3d(x, conv.weight, conv.bias, padding=padding)


def upsample(x: Tensor) -> Tensor:
    """Double y and x by repetition."""
    return F.interpolate(x, scale_factor=(1.0, 2.0, 2.0))


def downsample(x: Tensor) -> Tensor:
    """Halve y and x by the mean."""
    return F.avg_pool3d(x, (1, 2, 2))


def channels_first(x: Tensor) -> Tensor:
    """(n, y, x, z, c) -> (n, c, z, y, x)."""
    return x.permute(0, 4, 3, 1, 2).contiguous()


def channels_last(x: Tensor) -> Tensor:
    """(n, c, z, y, x) -> (n, y, x, z, c)."""
    return x.permute(0, 3, 4, 2, 1)
