"""Residual block and image attention of the denoising network (arXiv 2503.01220).

Feature maps are (patch, y, x, z, channel): norms and tokens are rows of memory, and a convolution
across one or two sections is a 2-D convolution over folded channels, channels last. Every
convolution pads with zeros at the patch border and no norm looks across space: a patch's features
depend on that patch alone.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teramind.network.norm import ChannelNorm

Resample = Literal["down", "up"]


class SectionConv(nn.Conv3d):
    """Convolution over (z, y, x) that keeps the size, zeros beyond the patch: (n, y, x, z, c).

    Args:
        inputs: channels in.
        outputs: channels out.
        depth: kernel size along z, 1 or 3.
        edge: kernel size along y and x, 1 or 3.

    Attributes:
        lower: type to multiply in, less precise than the weights'; see `precision`.
    """

    def __init__(self, inputs: int, outputs: int, *, depth: int, edge: int) -> None:
        half = (depth // 2, edge // 2, edge // 2)
        super().__init__(inputs, outputs, (depth, edge, edge), padding=half)
        self.lower: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(n, y, x, z, inputs) -> (n, y, x, z, outputs), in the type of x."""
        with torch.autocast(x.device.type, self.lower, enabled=self.lower is not None):
            return self._convolve(x).to(x.dtype)

    def _convolve(self, x: Tensor) -> Tensor:
        z = x.shape[3]
        if self.kernel_size == (1, 1, 1):
            return F.linear(x, self.weight.flatten(1), self.bias)
        if self.kernel_size[0] == 1:
            sections = x.movedim(3, 1)  # (n, z, y, x, c)
            flat = self._in_plane(sections.flatten(0, 1), self.weight[:, :, 0], self.bias)
            return flat.unflatten(0, sections.shape[:2]).movedim(1, 3)
        if z > 2:
            return super().forward(x.permute(0, 4, 3, 1, 2)).permute(0, 3, 4, 2, 1)
        bias = self.bias.repeat(z) if self.bias is not None else None
        folded = self._in_plane(x.flatten(3), fold_sections(self.weight, z), bias)
        return folded.unflatten(3, (z, -1))

    def _in_plane(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """2-D convolution, (n, y, x, c) in and out."""
        planes = F.conv2d(channels_first(x), weight, bias, padding=self.padding[1:])
        return planes.permute(0, 2, 3, 1)


def channels_first(x: Tensor) -> Tensor:
    """(n, y, x, c) -> (n, c, y, x), channels last in memory, as torch's 2-D operations like it."""
    return x.permute(0, 3, 1, 2)


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
    """Double y and x by repetition: (n, y, x, z, c) -> (n, 2y, 2x, z, c)."""
    doubled = F.interpolate(channels_first(x.flatten(3)), scale_factor=2.0)
    return doubled.permute(0, 2, 3, 1).unflatten(3, x.shape[3:])


def downsample(x: Tensor) -> Tensor:
    """Halve y and x by the mean: (n, y, x, z, c) -> (n, y/2, x/2, z, c)."""
    halved = F.avg_pool2d(channels_first(x.flatten(3)), 2)
    return halved.permute(0, 2, 3, 1).unflatten(3, x.shape[3:])


class ResidualBlock(nn.Module):
    """Two convolutions with the time step as scale and shift between them, and a skip."""

    def __init__(
        self, inputs: int, outputs: int, embed: int, *, resample: Resample | None = None
    ) -> None:
        super().__init__()
        self.norm_in = ChannelNorm(inputs)
        self.conv_in = SectionConv(inputs, outputs, depth=3, edge=3)
        self.time = nn.Linear(embed, 2 * outputs)
        self.norm_out = ChannelNorm(outputs)
        self.dropout = nn.Dropout(0.1)
        self.conv_out = SectionConv(outputs, outputs, depth=3, edge=3)
        same = inputs == outputs
        self.skip = nn.Identity() if same else SectionConv(inputs, outputs, depth=1, edge=1)
        self.resample = resample

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Maps (n, y, x, z, inputs) and time (1 or n, embed) -> (n, y', x', z, outputs)."""
        h = self.norm_in.silu(x)
        if self.resample:
            resize = downsample if self.resample == "down" else upsample
            h, x = resize(h), resize(x)
        h = self.conv_in(h)
        scale, shift = self.time(F.silu(time)).chunk(2, dim=-1)
        h = self.norm_out.silu(h, scale, shift)
        return self.skip(x) + self.conv_out(self.dropout(h))


def to_quadrants(tokens: Tensor) -> Tensor:
    """(n, y, x, z, c) -> (n, 4, y/2 x/2 z, c): the quarters that a shift by half a patch moves."""
    n, y, x, z, c = tokens.shape
    split = tokens.reshape(n, 2, y // 2, 2, x // 2, z, c)
    return split.transpose(2, 3).reshape(n, 4, y * x * z // 4, c)


def from_quadrants(quadrants: Tensor, shape: torch.Size) -> Tensor:
    """Inverse of `to_quadrants`; `shape` is that of its argument."""
    n, y, x, z, c = shape
    split = quadrants.view(n, 2, 2, y // 2, x // 2, z, c)
    return split.transpose(2, 3).reshape(shape)


class ImageAttention(nn.Module):
    """Image tokens attend to gene tokens of the same quadrant, gated by the genes."""

    def __init__(self, channels: int, gene_channels: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(gene_channels, 7 * channels)
        self.norm_attention = ChannelNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.query_norm = ChannelNorm(channels)
        self.key_norm = ChannelNorm(channels)
        self.project = nn.Linear(channels, channels)
        self.norm_mlp = ChannelNorm(channels)
        self.mlp_in = nn.Linear(channels, 4 * channels)
        self.mlp_out = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor, genes: Tensor) -> Tensor:
        """Maps (n, y, x, z, c) and genes (n, y, x, z, c_g) of the same level -> shape of x."""
        modulation = self.modulation(F.silu(genes)).chunk(7, dim=-1)
        shift_a, scale_a, gate_a, context, shift_m, scale_m, gate_m = modulation
        h = self.norm_attention(x) * (1 + scale_a) + shift_a
        x = x + gate_a * self.attend(h, context)
        h = self.norm_mlp(x) * (1 + scale_m) + shift_m
        return x + gate_m * self.mlp_out(F.gelu(self.mlp_in(h), approximate="tanh"))

    def attend(self, h: Tensor, context: Tensor) -> Tensor:
        """Softmax(q k / c) v inside each quadrant; tokens (n, y, x, z, c) in and out."""
        q = to_quadrants(self.query_norm(self.query(h)))
        k = to_quadrants(self.key_norm(self.key(context)))
        v = to_quadrants(self.value(context))
        # The published code scales by 1/sqrt(c) twice, so the logits are divided by c.
        mixed = F.scaled_dot_product_attention(q, k, v, scale=1 / h.shape[-1])
        return self.project(from_quadrants(mixed, h.shape))
