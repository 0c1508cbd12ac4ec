"""Norm, residual block and image attention of the denoising network (arXiv 2503.01220).

Feature maps are (patch, channel, z, y, x). Every convolution pads with zeros at the patch border
and no norm looks across space: a patch's features depend on that patch alone.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-6

Resample = Literal["down", "up"]


class ChannelNorm(nn.Module):
    """Root-mean-square norm over channels, statistics in float32: x / rms(x) * weight.

    The channel axis is 1 for maps (`axis=1`) and the last for tokens (`axis=-1`).
    """

    def __init__(self, channels: int, *, axis: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Shape in, shape out."""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(self.axis, keepdim=True) + EPSILON)
        weight = self.weight if self.axis == -1 else self.weight[:, None, None, None]
        return (wide * scale).to(x.dtype) * weight


def conv(inputs: int, outputs: int, depth: int, edge: int) -> nn.Conv3d:
    """Convolution of kernel (depth, edge, edge) that keeps the size, zeros beyond the patch."""
    return nn.Conv3d(
        inputs, outputs, (depth, edge, edge), padding=(depth // 2, edge // 2, edge // 2)
    )


def upsample(x: Tensor) -> Tensor:
    """Double y and x by repetition: (n, c, z, y, x) -> (n, c, z, 2y, 2x)."""
    return F.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest")


def downsample(x: Tensor) -> Tensor:
    """Halve y and x by the mean: (n, c, z, y, x) -> (n, c, z, y/2, x/2)."""
    return F.avg_pool3d(x, (1, 2, 2))


class ResidualBlock(nn.Module):
    """Two convolutions with the time step as scale and shift between them, and a skip."""

    def __init__(
        self, inputs: int, outputs: int, embed: int, *, resample: Resample | None = None
    ) -> None:
        super().__init__()
        self.norm_in = ChannelNorm(inputs, axis=1)
        self.conv_in = conv(inputs, outputs, 3, 3)
        self.time = nn.Linear(embed, 2 * outputs)
        self.norm_out = ChannelNorm(outputs, axis=1)
        self.dropout = nn.Dropout(0.1)
        self.conv_out = conv(outputs, outputs, 3, 3)
        self.skip = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1, 1)
        self.resample = resample

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (n, inputs, z, y, x) and time (1 or n, embed) -> (n, outputs, z, y', x')."""
        h = F.silu(self.norm_in(x))
        if self.resample:
            resize = downsample if self.resample == "down" else upsample
            h, x = resize(h), resize(x)
        h = self.conv_in(h)
        scale, shift = self.time(F.silu(time))[:, :, None, None, None].chunk(2, dim=1)
        h = F.silu(self.norm_out(h) * (1 + scale) + shift)
        return self.skip(x) + self.conv_out(self.dropout(h))


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
        """x (n, c, z, y, x) and genes (n, c_g, z, y, x) of the same level -> shape of x."""
        tokens, gene_tokens = x.movedim(1, -1), genes.movedim(1, -1)  # (n, z, y, x, c)
        modulation = self.modulation(F.silu(gene_tokens)).chunk(7, dim=-1)
        shift_a, scale_a, gate_a, context, shift_m, scale_m, gate_m = modulation
        h = self.norm_attention(tokens) * (1 + scale_a) + shift_a
        tokens = tokens + gate_a * self.attend(h, context)
        h = self.norm_mlp(tokens) * (1 + scale_m) + shift_m
        tokens = tokens + gate_m * self.mlp_out(F.gelu(self.mlp_in(h), approximate="tanh"))
        return tokens.movedim(-1, 1)

    def attend(self, h: Tensor, context: Tensor) -> Tensor:
        """Softmax(q k / c) v inside each quadrant; tokens (n, z, y, x, c) in and out."""
        q = to_quadrants(self.query_norm(self.query(h)))
        k = to_quadrants(self.key_norm(self.key(context)))
        v = to_quadrants(self.value(context))
        # The published code scales by 1/sqrt(c) twice, so the logits are divided by c.
        mixed = F.scaled_dot_product_attention(q, k, v, scale=1 / h.shape[-1])
        return self.project(from_quadrants(mixed, h.shape))
