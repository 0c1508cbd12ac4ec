"""The network's inference on a CPU: the same numbers to rounding, by Winograd convolutions.

Maps are (z, y, x, patch, channel), as `winograd` wants them. Norms write into the padded input of
the convolution that follows, and concatenated maps are never copied together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from teramind.network.blocks import Resample, ResidualBlock, SectionConv
from teramind.network.norm import EPSILON
from teramind.network.unet import LEVELS, Axes, Encoded, Network, stains_first, stains_last
from teramind.network.winograd import WinogradConv

NARROWEST = 16
"""Channels at full resolution from which on Winograd convolutions are faster than direct ones."""


def for_inference(network: Network) -> Network | FastNetwork:
    """The fastest form of a network on its device, equal to rounding."""
    precise = all(c.lower is None for c in network.modules() if isinstance(c, SectionConv))
    on_cpu, few = network.stem.weight.is_cpu, network.spec.images <= 2
    if on_cpu and precise and few and network.spec.base >= NARROWEST:
        return FastNetwork(network)
    return network


class FastNetwork:
    """What generation asks of a `Network`, for windows of one or two image sections."""

    axes = Axes(patch=3, y=1, x=2)

    def __init__(self, network: Network) -> None:
        self.network, self.spec, self.stem = network, network.spec, network.stem
        self.embed_time = network.embed_time
        self.blocks = {
            name: FastBlock(module, network.spec.images)
            for name, module in network.named_modules()
            if isinstance(module, ResidualBlock)
        }

    def genes(self, counts: Tensor) -> list[Tensor]:
        """(n, bins, bins, S, G) counts -> features of levels 0..3, each (z, y, x, n, c)."""
        return [from_module(level).contiguous() for level in self.network.genes(counts)]

    def encode(self, state: Tensor, genes: list[Tensor], time: Tensor) -> Encoded:
        """Features of aligned patches (n, stain z, P, P); see `Network.encode`."""
        sections = stains_last(state, len(self.spec.stains))
        h = from_module(self.network.stem(sections)).contiguous()
        skips = []
        for level in range(LEVELS):
            kept = [h]
            for i in range(2):
                h = self._conditioned(f"encoder.{level}.{i}", [h], genes[level], time)
                kept.append(h)
            skips.append(kept)
            if level < LEVELS - 1:
                h = self.blocks[f"down.{level}"]([h], time)
        h = self._conditioned("middle_in", [h], genes[3], time)
        return Encoded(self.blocks["middle_out"]([h], time), skips, genes)

    def decode(self, encoded: Encoded, time: Tensor) -> Tensor:
        """Noise estimate of the patches in `encoded`: (n, stain z, P, P)."""
        h = encoded.middle
        for level in reversed(range(LEVELS)):
            for i, skip in enumerate(encoded.skips[level][::-1]):
                h = self._conditioned(f"decoder.{level}.{i}", [h, skip], encoded.genes[level], time)
            if level:
                h = self.blocks[f"up.{level - 1}"]([h], time)
        h = norm_silu([h], self.network.head_norm.weight)[:, 1:-1, 1:-1]
        return stains_first(self.network.head(to_module(h)))

    def _conditioned(self, name: str, maps: list[Tensor], genes: Tensor, time: Tensor) -> Tensor:
        h = self.blocks[f"{name}.block"]([*maps, genes], time)
        attention: Any = self.network.get_submodule(name).attention
        return h if attention is None else from_module(attention(to_module(h), to_module(genes)))


class FastBlock:
    """A `ResidualBlock` on maps (z, y, x, patch, channel)."""

    def __init__(self, block: Any, sections: int) -> None:
        self.block = block
        self.conv_in, self.conv_out = (
            WinogradConv(conv.weight, conv.bias, sections)
            for conv in (block.conv_in, block.conv_out)
        )

    def __call__(self, maps: list[Tensor], time: Tensor) -> Tensor:
        """As if `maps` were concatenated along the channels."""
        block = self.block
        h = norm_silu(maps, block.norm_in.weight)
        if block.resample:
            h = F.pad(resize(h[:, 1:-1, 1:-1], block.resample), (0, 0, 0, 0, 1, 1, 1, 1))
        h = self.conv_in(h)
        scale, shift = block.time(F.silu(time))[0].chunk(2)
        h = norm_silu([h], block.norm_out.weight * (1 + scale), shift)
        return self.conv_out(h).add_(self._skip(maps))

    def _skip(self, maps: list[Tensor]) -> Tensor:
        if isinstance(self.block.skip, torch.nn.Identity):
            return resize(torch.cat(maps, -1), self.block.resample)
        weight = self.block.skip.weight.flatten(1).split([part.shape[-1] for part in maps], 1)
        first, *rest = (F.linear(part, w) for part, w in zip(maps, weight, strict=True))
        return sum(rest, first + self.block.skip.bias)


def norm_silu(maps: list[Tensor], weight: Tensor, shift: Tensor | None = None) -> Tensor:
    """SiLU(RMS norm x weight + shift) over the channels of all maps, with a border of zeros.

    Maps (z, y, x, n, c_i), weight and shift (sum of c_i,) -> (z, y + 2, x + 2, n, sum of c_i).
    """
    z, height, width, n, _ = maps[0].shape
    squares = sum(torch.linalg.vector_norm(part, dim=-1, keepdim=True).square() for part in maps)
    scale = torch.rsqrt(squares / len(weight) + EPSILON)
    padded = maps[0].new_zeros(z, height + 2, width + 2, n, len(weight))
    inner = padded[:, 1:-1, 1:-1]
    for part, place in zip(maps, inner.split([part.shape[-1] for part in maps], -1), strict=True):
        torch.mul(part, scale, out=place)
    inner.mul_(weight)
    if shift is not None:
        inner.add_(shift)
    F.silu(inner, inplace=True)
    return padded


def resize(maps: Tensor, resample: Resample | None) -> Tensor:
    """Halve y and x by the mean, or double them by repetition: (z, y, x, n, c)."""
    if resample == "up":
        return maps.repeat_interleave(2, 1).repeat_interleave(2, 2)
    if resample == "down":
        return maps.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).mean((2, 4))
    return maps


def from_module(maps: Tensor) -> Tensor:
    """(n, y, x, z, c) -> (z, y, x, n, c)."""
    return maps.transpose(0, 3)


def to_module(maps: Tensor) -> Tensor:
    """(z, y, x, n, c) -> (n, y, x, z, c)."""
    return maps.transpose(0, 3)
