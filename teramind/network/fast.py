"""The network's inference: the same numbers to rounding, with less around the convolutions.

Concatenated maps are never copied together: norms and skips read them part by part, and norms write
where the next convolution reads. How maps lie in memory depends on what convolves them; y and x are
the axes 1 and 2 always.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from teramind.network.blocks import Resample, ResidualBlock, SectionConv
from teramind.network.folded import FoldedConv
from teramind.network.norm import EPSILON
from teramind.network.unet import (
    LEVELS,
    PATCH_FIRST,
    Axes,
    Encoded,
    Network,
    stains_first,
    stains_last,
)
from teramind.network.winograd import WinogradConv

NARROWEST = 32 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 16
"""Channels at full resolution from which on Winograd convolutions are faster on a CPU."""


class Form(NamedTuple):
    """How maps lie in memory, and what convolves them.

    Attributes:
        axes: of the maps.
        border: zeros around the y and x of maps that are convolved.
        convolution: makes one from a `SectionConv` of depth 3 and the number of sections.
    """

    axes: Axes
    border: int
    convolution: Callable[[Any, int], Callable[[Tensor], Tensor]]

    def turn(self, maps: Tensor) -> Tensor:
        """From maps (n, y, x, z, c), as modules have them, to the form's, and back."""
        return maps.transpose(0, self.axes.patch)


WINOGRAD = Form(
    Axes(patch=3, y=1, x=2),
    border=1,
    convolution=lambda conv, sections: WinogradConv(conv.weight, conv.bias, sections),
)
"""Maps (z, y, x, n, c) of one or two sections."""

FOLDED = Form(PATCH_FIRST, border=0, convolution=FoldedConv)
"""Maps (n, y, x, z, c) of one or two sections."""

PLAIN = Form(PATCH_FIRST, border=0, convolution=lambda conv, sections: conv)
"""Maps (n, y, x, z, c)."""


def for_inference(network: Network) -> FastNetwork:
    """The fastest form of a network on its device, equal to rounding."""
    precise = all(c.lower is None for c in network.modules() if isinstance(c, SectionConv))
    wide = network.stem.weight.is_cpu and network.spec.base >= NARROWEST
    if network.spec.images > 2:
        return FastNetwork(network, PLAIN)
    return FastNetwork(network, WINOGRAD if wide and precise else FOLDED)


class FastNetwork:
    """What generation asks of a `Network`, in one of its forms."""

    def __init__(self, network: Network, form: Form) -> None:
        self.network, self.spec, self.stem = network, network.spec, network.stem
        self.embed_time, self.form, self.axes = network.embed_time, form, form.axes
        self.blocks = {
            name: FastBlock(module, form, network.spec.images)
            for name, module in network.named_modules()
            if isinstance(module, ResidualBlock)
        }

    def genes(self, counts: Tensor) -> list[Tensor]:
        """(n, bins, bins, S, G) counts -> features of levels 0..3, as the form has maps."""
        return [self.form.turn(level).contiguous() for level in self.network.genes(counts)]

    def encode(self, state: Tensor, genes: list[Tensor], time: Tensor) -> Encoded:
        """Features of aligned patches (n, stain z, P, P); see `Network.encode`."""
        sections = stains_last(state, len(self.spec.stains))
        h = self.form.turn(self.network.stem(sections)).contiguous()
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
        h = norm_silu([h], self.network.head_norm.weight)
        return stains_first(self.network.head(self.form.turn(h)))

    def _conditioned(self, name: str, maps: list[Tensor], genes: Tensor, time: Tensor) -> Tensor:
        h = self.blocks[f"{name}.block"]([*maps, genes], time)
        attention: Any = self.network.get_submodule(name).attention
        turn = self.form.turn
        return h if attention is None else turn(attention(turn(h), turn(genes)))


class FastBlock:
    """A `ResidualBlock` on maps of a form."""

    def __init__(self, block: Any, form: Form, sections: int) -> None:
        self.block, self.border = block, form.border
        self.conv_in = form.convolution(block.conv_in, sections)
        self.conv_out = form.convolution(block.conv_out, sections)

    def __call__(self, maps: list[Tensor], time: Tensor) -> Tensor:
        """As if `maps` were concatenated along the channels."""
        block, border = self.block, self.border
        if block.resample:
            h = with_border(resize(norm_silu(maps, block.norm_in.weight), block.resample), border)
        else:
            h = norm_silu(maps, block.norm_in.weight, border=border)
        h = self.conv_in(h)
        scale, shift = block.time(F.silu(time))[0].chunk(2)
        h = norm_silu([h], block.norm_out.weight * (1 + scale), shift, border=border)
        return self.conv_out(h).add_(self._skip(maps))

    def _skip(self, maps: list[Tensor]) -> Tensor:
        if isinstance(self.block.skip, torch.nn.Identity):
            whole = maps[0] if len(maps) == 1 else torch.cat(maps, -1)
            return resize(whole, self.block.resample)
        weight = self.block.skip.weight.flatten(1).split([part.shape[-1] for part in maps], 1)
        total, *rest = (F.linear(part, w) for part, w in zip(maps, weight, strict=True))
        for part in rest:
            total.add_(part)
        return total.add_(self.block.skip.bias)


def norm_silu(
    maps: list[Tensor], weight: Tensor, shift: Tensor | None = None, *, border: int = 0
) -> Tensor:
    """SiLU(RMS norm x weight + shift) over the channels of all maps, with a border of zeros.

    Maps (., y, x, ., c_i), weight and shift (sum of c_i,) -> (., y + 2 border, x + 2 border, .,
    sum of c_i).
    """
    squares = sum(torch.linalg.vector_norm(part, dim=-1, keepdim=True).square() for part in maps)
    scale = torch.rsqrt(squares / len(weight) + EPSILON)
    outer, height, width, inner, _ = maps[0].shape
    size = outer, height + 2 * border, width + 2 * border, inner, len(weight)
    whole = maps[0].new_zeros(size) if border else maps[0].new_empty(size)
    inside = whole[:, border : border + height, border : border + width]
    for part, place in zip(maps, inside.split([part.shape[-1] for part in maps], -1), strict=True):
        torch.mul(part, scale, out=place)
    if shift is None:
        inside.mul_(weight)
    else:
        torch.addcmul(shift, inside, weight, out=inside)
    F.silu(inside, inplace=True)
    return whole


def with_border(maps: Tensor, border: int) -> Tensor:
    """Maps with zeros around y and x."""
    return F.pad(maps, (0, 0, 0, 0, *(border,) * 4)) if border else maps


def resize(maps: Tensor, resample: Resample | None) -> Tensor:
    """Halve y and x by the mean, or double them by repetition."""
    if resample == "up":
        return maps.repeat_interleave(2, 1).repeat_interleave(2, 2)
    if resample == "down":
        return maps.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).mean((2, 4))
    return maps
