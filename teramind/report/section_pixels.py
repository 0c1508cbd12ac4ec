"""The pixels of a section at the scale of the report's pictures, and a close-up of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from scipy.ndimage import uniform_filter

from teramind.block_means import LONGEST
from teramind.evaluate.baseline import Regression
from teramind.expression.raster import Raster
from teramind.geometry import Rect
from teramind.images.resample import open_images
from teramind.report.pictures import Floats, Grey, Grid, averaged, bin_means
from teramind.volume import VolumeLayout, open_level, volume_layout
from teramind.volume.place import volume_place

CLOSE_UP = 320
"""Longest edge of a close-up in pixels of the plane."""


class Stack(NamedTuple):
    """Images (c, z, y, x) and where they lie: number of the first section, rectangle of a plane."""

    array: zarr.Array[Any]
    first: int
    rect: Rect

    def has(self, section: int) -> bool:
        """Whether the stack holds that section."""
        return 0 <= section - self.first < self.array.shape[1]

    def read(self, c: int, section: int, rect: Rect) -> Grey:
        """Return the pixels (y, x) of `rect`, 0 outside the stack."""
        out = np.zeros((rect.height, rect.width), np.uint8)
        shared = rect.cut(self.rect)
        if shared.height:
            part = self.array[c, section - self.first, *shared.within(self.rect)]
            out[shared.within(rect)] = part
        return out

    def shrunk(self, c: int, section: int, rect: Rect, factor: int) -> Grey:
        """Return the means of blocks of `factor` pixels over `rect`, rounded."""

        def rows(top: int, bottom: int) -> Grey:
            return self.read(c, section, Rect(rect.y + top, rect.x, bottom - top, rect.width))

        return (averaged(rows, rect.height, factor) + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class SectionPixels:
    """What is read of one section: a picture per stain, real ones where there are any."""

    number: int
    made: list[Grey]
    real: list[Grey]
    density: Floats
    close: Rect | None
    close_made: list[Grey]
    close_real: list[Grey]
    close_fitted: list[Grey]
    close_density: Floats | None


class SectionReader:
    """Reads the pixels of a section at the scale of the pictures."""

    def __init__(
        self,
        volume: str | Path,
        raster: Raster,
        *,
        reference: Path | None,
        holdout: Rect | None,
        weights: Regression | None,
    ) -> None:
        self.weights = weights
        self.layout, self.raster, self.holdout = volume_layout(volume), raster, holdout
        first, self.rect = volume_place(self.layout)
        level = _level(self.layout)
        plane = self.layout.plane(level)
        self.extra = -(-max(plane) // LONGEST)
        self.small = Stack(open_level(volume, level), first, Rect(0, 0, *plane))
        self.full = Stack(open_level(volume, 0), first, self.rect)
        self.grid = Grid(self.rect, self.extra * 2**level)
        self.real: Stack | None = None
        if reference is not None:
            images = open_images(reference, self.layout.stains)
            self.real = Stack(images, 0, Rect(0, 0, *images.shape[2:]))

    @property
    def close_up(self) -> tuple[int, int] | None:
        """Height and width of close-ups in pixels; None for sections that show all detail."""
        longest = max(self.rect.height, self.rect.width)
        if longest <= 2 * CLOSE_UP:
            return None
        share = CLOSE_UP / longest
        return max(round(self.rect.height * share), 1), max(round(self.rect.width * share), 1)

    def read(self, z: int) -> SectionPixels:
        """Read section `z` of the volume."""
        number, stains = z + self.small.first, range(len(self.layout.stains))
        made = [self.small.shrunk(c, number, self.small.rect, self.extra) for c in stains]
        close = self._close_rect(made)
        real = self.real if self.real and self.real.has(number) else None
        return SectionPixels(
            number=number,
            made=made,
            real=[real.shrunk(c, number, self.rect, self.grid.factor) for c in stains]
            if real
            else [],
            density=bin_means(self.raster, number, self.grid),
            close=close,
            close_made=[self.full.read(c, number, close) for c in stains] if close else [],
            close_real=[real.read(c, number, close) for c in stains] if close and real else [],
            close_fitted=[self._fitted(c, number, close) for c in stains]
            if close and real and self.weights
            else [],
            close_density=bin_means(self.raster, number, Grid(close, 1)) if close else None,
        )

    def _fitted(self, c: int, section: int, rect: Rect) -> Grey:
        """Return what the regression makes of the expression."""
        assert self.weights is not None
        grey = self.weights.predict(self.raster, section, rect, c)
        return np.clip(np.rint(grey), 0, 255).astype(np.uint8)

    def _close_rect(self, made: Sequence[Grey]) -> Rect | None:
        """Return the close-up: the middle of the holdout, else where the stains are brightest.

        A small section is its own close-up where it stands beside a regression.
        """
        if not self.close_up:
            return self.rect if self.real and self.weights else None
        height, width = self.close_up
        if self.real and self.holdout:
            y = self.holdout.y + (self.holdout.height - height) // 2
            x = self.holdout.x + (self.holdout.width - width) // 2
        else:
            y, x = (corner * self.grid.factor for corner in self._brightest(made, height, width))
            y, x = y + self.rect.y - height // 2, x + self.rect.x - width // 2
        y = min(max(y, self.rect.y), self.rect.bottom - height)
        x = min(max(x, self.rect.x), self.rect.right - width)
        return Rect(y, x, height, width)

    def _brightest(self, made: Sequence[Grey], height: int, width: int) -> tuple[int, int]:
        """Return the picture pixel (y, x) around which a close-up would be brightest."""
        size = (max(height // self.grid.factor, 1), max(width // self.grid.factor, 1))
        bright = uniform_filter(np.sum(made, axis=0, dtype=np.float32), size, mode="constant")
        y, x = np.unravel_index(int(np.argmax(bright)), bright.shape)
        return int(y), int(x)


def _level(layout: VolumeLayout) -> int:
    """Return the first level no longer than a picture, else the last."""
    small = (n for n in range(layout.levels) if max(layout.plane(n)) <= LONGEST)
    return next(small, layout.levels - 1)
