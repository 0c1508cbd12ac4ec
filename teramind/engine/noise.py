"""Initial noise as a pure function of seed and place, whatever the slabs, phases and devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from teramind.config.values import NoiseName
from teramind.geometry import Rect, Windows

PUBLISHED_TILE = 256
PUBLISHED_COLUMNS = 416


class Noise(Protocol):
    """Standard normal numbers of a rectangle of the plane."""

    def __call__(self, rect: Rect, sections: Sequence[int]) -> NDArray[np.float32]:
        """Noise of `rect` in the image sections given: (stain, z, height, width)."""


def make_noise(kind: NoiseName, *, seed: int, stains: int, patch: int, windows: Windows) -> Noise:
    """The initial noise by its name in the config."""
    if kind == "published":
        return PublishedNoise(sections=windows.generated, stains=stains, first=windows.first)
    return PhiloxNoise(seed=seed, stains=stains, patch=patch)


class PhiloxNoise:
    """Counter-based noise, keyed by seed and by (section, stain, patch row, patch column).

    The raw Philox 4x64 stream (Salmon et al. 2011), whose bits numpy guarantees, is turned into
    normal numbers by the inverse of their distribution.

    Args:
        seed: 0 .. 2^64 - 1.
        stains: number of stains.
        patch: patch edge P in pixels.
    """

    def __init__(self, *, seed: int, stains: int, patch: int) -> None:
        self.seed, self.stains, self.patch = seed, stains, patch

    def __call__(self, rect: Rect, sections: Sequence[int]) -> NDArray[np.float32]:
        """See `Noise`; `rect` must not reach above or left of pixel (0, 0)."""
        out = np.empty((self.stains, len(sections), rect.height, rect.width), np.float32)
        for tile in rect.rounded_out(self.patch).blocks(self.patch):
            shared = tile.cut(rect)
            for stain in range(self.stains):
                for k, section in enumerate(sections):
                    patch = self._patch(section, stain, tile)
                    out[stain, k, *shared.within(rect)] = patch[shared.within(tile)]
        return out

    def _patch(self, section: int, stain: int, tile: Rect) -> NDArray[np.float32]:
        place = [0, section * self.stains + stain, tile.y // self.patch, tile.x // self.patch]
        key = np.array([self.seed, 0], np.uint64)  # a list with a seed from 2^63 on becomes floats
        bits = np.random.Philox(key=key, counter=place)
        words = bits.random_raw(self.patch**2).reshape(self.patch, self.patch)
        return ndtri(((words >> np.uint64(11)) + 0.5) * 2.0**-53).astype(np.float32)


class PublishedNoise:
    """The release's noise: one torch seed per tile of 256 pixels, all channels drawn together.

    Args:
        sections: sections in the whole volume.
        stains: number of stains.
        first: section number of the volume's first section.
    """

    def __init__(self, *, sections: int, stains: int, first: int = 0) -> None:
        self.sections, self.stains, self.first = sections, stains, first

    def __call__(self, rect: Rect, sections: Sequence[int]) -> NDArray[np.float32]:
        """See `Noise`."""
        out = np.empty((self.stains, len(sections), rect.height, rect.width), np.float32)
        # A window may reach beyond the last section; what is drawn there is dropped.
        inside = [min(section - self.first, self.sections - 1) for section in sections]
        for tile in rect.rounded_out(PUBLISHED_TILE).blocks(PUBLISHED_TILE):
            shared = tile.cut(rect)
            out[:, :, *shared.within(rect)] = self._tile(tile)[:, inside, *shared.within(tile)]
        return out

    def _tile(self, tile: Rect) -> NDArray[np.float32]:
        """Noise of a whole tile, (stain, section, 256, 256)."""
        import torch

        row, col = tile.y // PUBLISHED_TILE, tile.x // PUBLISHED_TILE
        seed = (1103515245 * (row * PUBLISHED_COLUMNS + col) + 12345) % 2**31
        generator = torch.Generator().manual_seed(seed)
        shape = (PUBLISHED_TILE, PUBLISHED_TILE, self.stains * self.sections)
        noise = torch.randn(shape, generator=generator).numpy()
        return noise.reshape(*shape[:2], self.stains, self.sections).transpose(2, 3, 0, 1)
