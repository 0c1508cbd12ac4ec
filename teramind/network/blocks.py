"""Norm, residual block and image attention of the denoising network (arXiv 2503.01220).

Feature maps are (patch, z, channel, y, x), so that a convolution across one or two sections is a
2-D convolution over folded channels. Every convolution pads with zeros at the patch border and no
norm looks across space: a patch's features depend on that patch alone.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-6

Resample = Literal["down", "up"]


class ChannelNorm(nn.Module):
    """Root-mean-square norm over channels, statistics in float32 at least: x / rms(x) * weight.

    The channel axis is 2 for maps (`axis=2`) and the last for tokens (`axis=-1`).
    """

    def __init__(self, channels: int, *, axis: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Shape in, shape out."""
        precise = x.to(torch.promote_types(x.dtype, torch.float32))
        square = precise.square().mean(self.axis, keepdim=True)
        scale = torch.rsqrt(square + EPSILON).to(x.dtype)
        weight = self.weight if self.axis == -1 else self.weight[:, None, None]
        return x * scale * weight


class SectionConv(nn.Conv3d):
    """Convolution over (z, y, x) that keeps the size, zeros beyond the patch: (n, z, c, y, x).

    Args:
        inputs: channels in.
        outputs: channels out.
        depth: kernel size along z, 1 or 3.
        edge: kernel size along y and x, 1 or 3.
    """

    def __init__(self, inputs: int, outputs: int, *, depth: int, edge: int) -> None:
        half = (depth // 2, edge // 2, edge // 2)
        super().__init__(inputs, outputs, (depth, edge, edge), padding=half)

    def forward(self, x: Tensor) -> Tensor:
        """(n, z, inputs, y, x) -> (n, z, outputs, y, x), in the type of x."""
        return self._convolve(x.to(self.weight.dtype)).to(x.dtype)

    def _convolve(self, x: Tensor) -> Tensor:
        n, z = x.shape[:2]
        pad = self.padding[1:]
        if self.kernel_size[0] == 1:
            flat = F.conv2d(x.flatten(0, 1), self.weight[:, :, 0], self.bias, padding=pad)
            return flat.unflatten(0, (n, z))
        if z > 2:
            return super().forward(x.transpose(1, 2)).transpose(1, 2)
        bias = self.bias.repeat(z) if self.bias is not None else None
        folded = F.conv2d(x.flatten(1, 2), fold_sections(self.weight, z), bias, padding=pad)
        return folded.unflatten(1, (z, -1))


def fold_sections(weight: Tensor, z: int) -> Tensor:
    """Write a kernel of depth 3 over one or two sections as a 2-D kernel.

    The taps that would meet zero padding are left out: a third of the work for two sections, two
    thirds for one. (out, in, 3, y, x) -> (z out, z in, y, x), both z-major.
    """
    before, here, after = weight.unbind(2)
    if z == 1:
        return here
    return torch.cat([torch.cat([here, after], 1), torch.cat([before, here], 1)], 0)


def upsample(x: Tensor) -> Tensor:
    """Double y and x by repetition: (n, z, c, y, x) -> (n, z, c, 2y, 2x)."""
    return F.interpolate(x.flatten(0, 1), scale_factor=2.0).unflatten(0, x.shape[:2])


def downsample(x: Tensor) -> Tensor:
    """Halve y and x by the mean: (n, z, c, y, x) -> (n, z, c, y/2, x/2)."""
    return F.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])


class ResidualBlock(nn.Module):
    """Two convolutions with the time step as scale and shift between them, and a skip."""

    def __init__(
        self, inputs: int, outputs: int, embed: int, *, resample: Resample | None = None
    ) -> None:
        super().__init__()
        self.norm_in = ChannelNorm(inputs, axis=2)
        self.conv_in = SectionConv(inputs, outputs, depth=3, edge=3)
        self.time = nn.Linear(embed, 2 * outputs)
        self.norm_out = ChannelNorm(outputs, axis=2)
        self.dropout = nn.Dropout(0.1)
        self.conv_out = SectionConv(outputs, outputs, depth=3, edge=3)
        same = inputs == outputs
        self.skip = nn.Identity() if same else SectionConv(inputs, outputs, depth=1, edge=1)
        self.resample = resample

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Maps (n, z, inputs, y, x) and time (1 or n, embed) -> (n, z, outputs, y', x')."""
        h = F.silu(self.norm_in(x))
        if self.resample:
            resize = downsample if self.resample == "down" else upsample
            h, x = resize(h), resize(x)
        h = self.conv_in(h)
        scale, shift = self.time(F.silu(time))[:, None, :, None, None].chunk(2, dim=2)
        h = F.silu(self.norm_out(h) * (1 + scale) + shift)
        return self.skip(x) + self.conv_out(self.dropout(h))


def multiply_in(network: nn.Module, dtype: torch.dtype) -> None:
    """Let the convolutions of residual blocks, nearly all of the work, multiply in `dtype`.

    Norms, skips, stem and head stay as they are: what a rounding error of the noisy image costs
    there is divided by the square root of alpha-bar, 1/90 at the first step.
    """
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            module.conv_in.to(dtype)
            module.conv_out.to(dtype)


def to_quadrants(tokens: Tensor) -> Tensor:
    """(n, z, y, x, c) -> (n, 4, z y/2 x/2, c): the quarters that a shift by half a patch moves."""
    n, z, y, x, c = tokens.shape
    split = tokens.view(n, z, 2, y // 2, 2, x // 2, c)
    return split.permute(0, 2, 4, 1, 3, 5, 6).reshape(n, 4, z * y * x // 4, c)


def from_quadrants(quadrants: Tensor, shape: torch.Size) -> Tensor:
    """Inverse of `to_quadrants`; `shape` is that of its argument."""
    n, z, y, x, c = shape
    split = quadrants.view(n, 2, 2, z, y // 2, x // 2, c)
    return split.permute(0, 3, 1, 4, 2, 5, 6).reshape(shape)


class ImageAttention(nn.Module):
    """Image tokens attend to gene tokens of the same quadrant, gated by the genes."""

    def __init__(self, channels: int, gene_channels: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(gene_channels, 7 * channels)
        self.norm_attention = ChannelNorm(channels, axis=-1)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.query_norm = ChannelNorm(channels, axis=-1)
        self.key_norm = ChannelNorm(channels, axis=-1)
        self.project = nn.Linear(channels, channels)
        self.norm_mlp = ChannelNorm(channels, axis=-1)
        self.mlp_in = nn.Linear(channels, 4 * channels)
        self.mlp_out = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor, genes: Tensor) -> Tensor:
        """Maps (n, z, c, y, x) and genes (n, z, c_g, y, x) of the same level -> shape of x."""
        tokens, gene_tokens = x.movedim(2, -1), genes.movedim(2, -1)  # (n, z, y, x, c)
        modulation = self.modulation(F.silu(gene_tokens)).chunk(7, dim=-1)
        shift_a, scale_a, gate_a, context, shift_m, scale_m, gate_m = modulation
        h = self.norm_attention(tokens) * (1 + scale_a) + shift_a
        tokens = tokens + gate_a * self.attend(h, context)
        h = self.norm_mlp(tokens) * (1 + scale_m) + shift_m
        tokens = tokens + gate_m * self.mlp_out(F.gelu(self.mlp_in(h), approximate="tanh"))
        return tokens.movedim(-1, 2)

    def attend(self, h: Tensor, context: Tensor) -> Tensor:
        """Softmax(q k / c) v inside each quadrant; tokens (n, z, y, x, c) in and out."""
        q = to_quadrants(self.query_norm(self.query(h)))
        k = to_quadrants(self.key_norm(self.key(context)))
        v = to_quadrants(self.value(context))
        # The published code scales by 1/sqrt(c) twice, so the logits are divided by c.
        mixed = F.scaled_dot_product_attention(q, k, v, scale=1 / h.shape[-1])
        return self.project(from_quadrants(mixed, h.shape))
