"""The denoising network of arXiv 2503.01220: encode patches, shift by half of one, decode."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teramind.network.blocks import ImageAttention, ResidualBlock, SectionConv
from teramind.network.genes import GeneBranch
from teramind.network.norm import ChannelNorm
from teramind.network.spec import NetworkSpec

LEVELS = 4


class Encoded(NamedTuple):
    """Everything the decoder reads of n patches, each tensor (n, y, x, z, c).

    `skips[l]` holds the three skip maps of level l, oldest first; `genes[l]` its gene features.
    """

    middle: Tensor
    skips: list[list[Tensor]]
    genes: list[Tensor]


def combine(function: Callable[..., Tensor], *encoded: Encoded) -> Encoded:
    """Apply `function(tensor, ...) -> tensor` to every map that the arguments share."""
    columns = [
        (e.middle, *(skip for level in e.skips for skip in level), *e.genes) for e in encoded
    ]
    flat = iter([function(*maps) for maps in zip(*columns, strict=True)])
    first = encoded[0]
    return Encoded(
        next(flat),
        [[next(flat) for _ in level] for level in first.skips],
        [next(flat) for _ in first.genes],
    )


class Axes(NamedTuple):
    """Where a feature map has its patches and pixels."""

    patch: int
    y: int
    x: int


PATCH_FIRST = Axes(patch=0, y=1, x=2)
"""Axes of maps (n, y, x, z, c)."""


def quarter(maps: Tensor, y: int, x: int, axes: Axes = PATCH_FIRST) -> Tensor:
    """What patches half a patch up (y = 0) or down (1) and left or right give: a view of `maps`."""
    half = maps.shape[axes.x] // 2
    return maps.narrow(axes.y, (1 - y) * half, half).narrow(axes.x, (1 - x) * half, half)


def collage(corner: Callable[[int, int], Tensor], axes: Axes = PATCH_FIRST) -> Tensor:
    """Shift by half a patch: put patches together from their corners (y, x), quarters of others."""
    rows = [torch.cat([corner(y, x) for x in (0, 1)], axes.x) for y in (0, 1)]
    return torch.cat(rows, axes.y)


def plane_corners(rows: int, cols: int, device: torch.device) -> Tensor:
    """Corner indices for the (rows-1)(cols-1) shifted patches of a full plane, row-major."""
    index = torch.arange(rows * cols, device=device).view(rows, cols)
    corners = (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:])
    return torch.stack([c.reshape(-1) for c in corners], 1)


def sinusoid(t: Tensor, width: int) -> Tensor:
    """Cosines then sines of t at geometric frequencies: (n,) -> (n, width)."""
    half = width // 2
    rates = torch.exp(-math.log(10000) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], -1)


def stains_last(state: Tensor, stains: int) -> Tensor:
    """Patches of an image as maps: (n, stain z, y, x) -> (n, y, x, z, stain)."""
    return state.unflatten(1, (stains, -1)).permute(0, 3, 4, 2, 1).contiguous()


def stains_first(maps: Tensor) -> Tensor:
    """Inverse of `stains_last`."""
    return maps.permute(0, 4, 3, 1, 2).flatten(1, 2)


class Conditioned(nn.Module):
    """A residual block that also reads gene features, and image attention where it stands."""

    def __init__(self, spec: NetworkSpec, inputs: int, level: int, *, attend: bool) -> None:
        super().__init__()
        width, gene_width = spec.widths[level], spec.gene_widths[level]
        self.block = ResidualBlock(inputs + gene_width, width, spec.embed)
        self.attention = ImageAttention(width, gene_width) if attend else None

    def forward(self, maps: list[Tensor], genes: Tensor, time: Tensor) -> Tensor:
        """Concatenate `maps` and `genes` along channels and transform."""
        h = self.block(torch.cat([*maps, genes], -1), time)
        return h if self.attention is None else self.attention(h, genes)


class Network(nn.Module):
    """Noise estimate of shifted patches from aligned ones and their gene counts."""

    axes = PATCH_FIRST

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        w, e = spec.widths, spec.embed
        self.time_in, self.time_out = nn.Linear(spec.base, e), nn.Linear(e, e)
        self.genes = GeneBranch(spec)
        self.stem = SectionConv(len(spec.stains), spec.base, depth=1, edge=3)
        self.encoder = nn.ModuleList(
            nn.ModuleList(
                Conditioned(
                    spec,
                    w[max(level - 1, 0)] if i == 0 and level else w[level],
                    level,
                    attend=spec.attends(level),
                )
                for i in range(2)
            )
            for level in range(LEVELS)
        )
        self.down = nn.ModuleList(
            ResidualBlock(w[level], w[level], e, resample="down") for level in range(LEVELS - 1)
        )
        self.middle_in = Conditioned(spec, w[3], 3, attend=True)
        self.middle_out = ResidualBlock(w[3], w[3], e)
        self.decoder = nn.ModuleList(
            nn.ModuleList(
                Conditioned(
                    spec,
                    w[min(level + (i == 0), 3)] + self._skip_width(level, 2 - i),
                    level,
                    attend=spec.attends(level),
                )
                for i in range(3)
            )
            for level in range(LEVELS)
        )
        self.up = nn.ModuleList(
            ResidualBlock(w[level], w[level], e, resample="up") for level in range(1, LEVELS)
        )
        self.head_norm = ChannelNorm(spec.base)
        self.head = SectionConv(spec.base, len(spec.stains), depth=1, edge=3)

    def _skip_width(self, level: int, index: int) -> int:
        """Channels of skip `index` (0 is the one that arrives from above) of `level`."""
        return self.spec.widths[max(level - 1, 0) if index == 0 else level]

    def embed_time(self, t: Tensor) -> Tensor:
        """(n,) integer training timesteps -> (n, E)."""
        wave = sinusoid(t, self.spec.base).to(self.time_in.weight.dtype)
        return self.time_out(F.silu(self.time_in(wave)))

    def encode(self, state: Tensor, genes: list[Tensor], time: Tensor) -> Encoded:
        """Features of aligned patches.

        Args:
            state: (n, stain z, P, P), the noisy images.
            genes: the gene branch's features of the same patches, levels 0..3.
            time: (1 or n, E).
        """
        h = self.stem(stains_last(state, len(self.spec.stains)))
        skips = []
        for level, blocks in enumerate(self.encoder):
            kept = [h]
            for block in blocks.children():
                h = block([h], genes[level], time)
                kept.append(h)
            skips.append(kept)
            if level < LEVELS - 1:
                h = self.down[level](h, time)
        h = self.middle_out(self.middle_in([h], genes[3], time), time)
        return Encoded(h, skips, genes)

    def decode(self, encoded: Encoded, time: Tensor) -> Tensor:
        """Noise estimate of the patches in `encoded`: (n, stain z, P, P)."""
        h = encoded.middle
        for level in reversed(range(LEVELS)):
            blocks = list(self.decoder[level].children())
            for block, skip in zip(blocks, encoded.skips[level][::-1], strict=True):
                h = block([h, skip], encoded.genes[level], time)
            if level:
                h = self.up[level - 1](h, time)
        return stains_first(self.head(self.head_norm.silu(h)))

    def forward(
        self, state: Tensor, counts: Tensor, t: Tensor, corners: Tensor, *, aligned: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Both outputs of the network, for training.

        Args:
            state: (n, stain z, P, P), noisy aligned patches.
            counts: (n, bins, bins, S, G), raw counts.
            t: (1,) or (n,) training timesteps; with (n,), those of each shifted patch's corners
                must agree.
            corners: (m, 4), the aligned patches at the top left, top right, bottom left and
                bottom right of each shifted patch; see `plane_corners`.
            aligned: whether to compute the second output.

        Returns:
            Noise of the m shifted patches, and of the n aligned ones or None.
        """
        time = self.embed_time(t)
        encoded = self.encode(state, self.genes(counts), time)
        shifted_time = time if len(t) == 1 else time[corners[:, 0]]
        moved = combine(
            lambda maps: collage(lambda y, x: quarter(maps, y, x)[corners[:, 2 * y + x]]), encoded
        )
        shifted = self.decode(moved, shifted_time)
        return shifted, self.decode(encoded, time) if aligned else None
