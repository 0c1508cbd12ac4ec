"""Winograd convolution over the sections of a window: an eighth of the multiplications.

A 3 x 3 convolution in the plane is done on tiles of 4 x 4 pixels by 36 instead of 144 products
(arXiv 1509.09308), at interpolation points for which rounding costs no more than in the direct sum.
Across two sections the kernel of depth 3 leaves four products of which three suffice:

    y0 = here x0 + after x1   = here (x0 + x1) + (after - here) x1
    y1 = before x0 + here x1  = here (x0 + x1) + (before - here) x0

The direct convolution with its zero padding along z multiplies six times. Both are identities, so
the result is the same but for rounding.

Maps are (z, y, x, patch, channel): tiles are then rows of matrices, and no copy turns one layout
into another. All patches of a call are worked on in chunks that stay in the cache.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TILE, SPAN = 4, 6
"""Pixels along a tile of the result, and of the input that it reads."""

POINTS = (0.0, 2**0.5, -(2**0.5), 0.5**0.5, -(0.5**0.5))
"""Interpolation points, with infinity. Reciprocal pairs keep all factors near 1."""

CHUNK = 4096
"""Pixels, over all patches, that are worked on together."""


@functools.cache
def transforms() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Matrices of F(4, 3): for the input (6, 6), the kernel (6, 3) and the result (4, 6).

    result @ ((kernel @ g) * (inward @ d)) is the correlation of d (6) with g (3).
    """
    points = np.array(POINTS)
    others = [np.delete(points, i) for i in range(SPAN - 1)]
    inward, kernel, outward = np.zeros((SPAN, SPAN)), np.zeros((SPAN, 3)), np.zeros((TILE, SPAN))
    for i, point in enumerate(points):
        inward[i, :-1] = np.poly(others[i])[::-1]
        kernel[i] = point ** np.arange(3) / np.prod(point - others[i])
        outward[:, i] = point ** np.arange(TILE)
    inward[-1] = np.poly(points)[::-1]
    kernel[-1, -1] = outward[-1, -1] = 1
    scale = 2.0 ** np.round(np.log2(np.abs(inward).max(1)))[:, None]
    return inward / scale, kernel * scale, outward


def inward_band(tiles: int) -> Tensor:
    """Input transform of adjacent tiles along one axis: (6 tiles, 4 tiles + 2), span-major."""
    band = np.zeros((SPAN, tiles, TILE * tiles + 2))
    for tile in range(tiles):
        band[:, tile, TILE * tile : TILE * tile + SPAN] = transforms()[0]
    return torch.from_numpy(band.reshape(SPAN * tiles, -1))


def outward_band(tiles: int) -> Tensor:
    """Result transform of adjacent tiles along one axis: (4 tiles, 6 tiles), span-major."""
    band = np.zeros((tiles, TILE, SPAN, tiles))
    for tile in range(tiles):
        band[tile, :, :, tile] = transforms()[2]
    return torch.from_numpy(band.reshape(TILE * tiles, -1))


class WinogradConv:
    """A convolution of depth 3 and edge 3 over one or two sections, for inference.

    Args:
        weight: (outputs, inputs, 3, 3, 3) over (z, y, x).
        bias: (outputs,).
        sections: 1 or 2. The transformed weights take 1.3 or 4 times the memory of `weight`.
    """

    def __init__(self, weight: Tensor, bias: Tensor, sections: int) -> None:
        before, here, after = weight.detach().double().unbind(2)
        kernels = [here] if sections == 1 else [here, after - here, before - here]
        kernel = torch.from_numpy(transforms()[1])
        self.bias = bias.detach()
        self.kernels = [
            torch.einsum("iy,ocyx,jx->jico", kernel, part, kernel).to(weight).contiguous()
            for part in kernels
        ]

    def __call__(self, padded: Tensor) -> Tensor:
        """(z, y + 2, x + 2, n, inputs) with a border of zeros -> (z, y, x, n, outputs)."""
        z, height, width, n, _ = padded.shape
        edge, outputs = height - 2, len(self.bias)
        out = padded.new_empty(z, edge, width - 2, n, outputs)
        chunk = max(CHUNK // edge**2, 1)
        for start in range(0, n, chunk):
            part = slice(start, start + chunk)
            for section, result in enumerate(self._convolve(padded[:, :, :, part])):
                torch.add(result, self.bias, out=out[section, :, :, part])
        return out

    def _convolve(self, padded: Tensor) -> list[Tensor]:
        n, outputs = padded.shape[3], len(self.bias)
        tiles = group_tiles(padded.shape[1] - 2)
        spectra = [to_spectrum(section, tiles) for section in padded]
        rows = tiles * tiles * n
        split = [s.view(SPAN, -1, SPAN, rows, s.shape[-1]) for s in spectra]
        products = [s.new_empty(*s.shape[:-1], outputs) for s in split]
        both = split[0] if len(split) == 1 else split[0] + split[1]
        here, *others = self.kernels
        for j in range(SPAN):
            for i in range(SPAN):
                shared = both[j, :, i] @ here[j, i]
                if len(split) == 1:
                    products[0][j, :, i] = shared
                    continue
                for own, other in ((0, 1), (1, 0)):
                    change = others[own][j, i].expand(len(shared), -1, -1)
                    products[own][j, :, i] = torch.baddbmm(shared, split[other][j, :, i], change)
        edge = padded.shape[1] - 2
        return [from_spectrum(p, edge, tiles, n) for p in products]


def group_tiles(edge: int) -> int:
    """Adjacent tiles along an axis that are transformed by one matrix; `edge` in pixels."""
    return next(tiles for tiles in (4, 3, 2, 1) if edge % (TILE * tiles) == 0)


def to_spectrum(padded: Tensor, tiles: int) -> Tensor:
    """(y + 2, x + 2, n, c) -> (6 of x, groups x, groups y, 6 of y, tiles y, tiles x n, c)."""
    height, width, n, c = padded.shape
    group = TILE * tiles
    down, across = (height - 2) // group, (width - 2) // group
    band = inward_band(tiles).to(padded)
    line, step = padded.stride(0), padded.stride(1)
    windows = padded.as_strided(
        (height, across, group + 2, n * c), (line, group * step, step, 1), padded.storage_offset()
    )
    columns = (band @ windows).view(height, across, SPAN, tiles * n * c)
    out = padded.new_empty(SPAN, across, down, SPAN * tiles, tiles * n * c)
    for y in range(down):
        rows = columns[y * group : y * group + group + 2]
        for j in range(SPAN):
            for x in range(across):
                torch.mm(band, rows[:, x, j], out=out[j, x, y])
    return out.view(SPAN, across, down, SPAN, tiles, tiles * n, c)


def from_spectrum(spectrum: Tensor, edge: int, tiles: int, n: int) -> Tensor:
    """(6 of x, groups x y, 6 of y, tiles y x n, c) -> (y, x, n, c)."""
    c, group = spectrum.shape[-1], TILE * tiles
    across = edge // group
    band = outward_band(tiles).to(spectrum)
    planes = spectrum.view(SPAN, across, across, SPAN * tiles, tiles * n * c)
    columns = spectrum.new_empty(across, group, across, SPAN, tiles * n * c)
    for y in range(across):
        for j in range(SPAN):
            for x in range(across):
                torch.mm(band, planes[j, x, y], out=columns[y, :, x, j])
    rows = columns.view(edge, across, SPAN * tiles, n * c)
    return (band @ rows).view(edge, edge, n, c)
