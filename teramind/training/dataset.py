"""Training windows: paired image and expression, cut where the network would see them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import zarr
from torch import Tensor

from teramind.errors import UserError
from teramind.expression.raster import Raster
from teramind.geometry import BIN, EMPTY, Rect, Windows
from teramind.network.spec import NetworkSpec
from teramind.schedule import TRAINING_STEPS
from teramind.training.places import Places

ALL = slice(None)
"""Every window of a step."""

AnyCut = TypeVar("AnyCut")
"""Where a window is cut, and how it is turned."""


class Batch(NamedTuple):
    """b training windows of p x p aligned patches (W = p P pixels); see `objective.window_loss`."""

    image: Tensor
    inside: Tensor
    noise: Tensor
    counts: Tensor
    t: Tensor


class WindowSource(Protocol):
    """What training draws its windows from.

    `batch` is the number of windows of a step, `spec` the network that they fit.
    """

    batch: int

    @property
    def spec(self) -> NetworkSpec:
        """The network that the windows fit."""
        ...

    def __call__(self, step: int, share: slice = ALL) -> Batch:
        """The windows of `step`, or a share of them; a pure function of both."""
        ...


@dataclass(frozen=True)
class PairedImages:
    """Images (c, z, y, x) uint8 and the raster under them; pixel (0, 0) is the plane's (0, 0)."""

    images: zarr.Array | np.ndarray
    raster: Raster

    @property
    def height(self) -> int:
        """Rows of the images in pixels."""
        return int(self.images.shape[2])

    @property
    def width(self) -> int:
        """Columns of the images in pixels."""
        return int(self.images.shape[3])

    @property
    def area(self) -> Rect:
        """Where there are both images and expression, inside the volume's bounds."""
        bounds = self.raster.bounds.rounded_out(BIN)
        return Rect(0, 0, self.height, self.width).cut(self.raster.extent).cut(bounds)


class PlaneCut(NamedTuple):
    """Where a window is cut, and how it is turned."""

    y: int
    x: int
    window: int
    turns: int
    flip: bool


class RandomWindows(ABC, Generic[AnyCut]):
    """Windows drawn at random, each a pure function of (seed, step).

    A subclass says where windows are cut and what they hold; see `WindowSource`.

    Args:
        spec: the network's architecture.
        edge: aligned patches p along a window's edge.
        batch: windows per step.
        seed: of places, turns, timesteps and noise.
    """

    def __init__(self, spec: NetworkSpec, *, edge: int, batch: int, seed: int) -> None:
        self.spec, self.edge, self.batch, self.seed = spec, edge, batch, seed

    @property
    def size(self) -> int:
        """Edge of one window in pixels."""
        return self.edge * self.spec.patch

    def __call__(self, step: int, share: slice = ALL) -> Batch:
        """The windows of `step`, or a share of them."""
        rng = np.random.default_rng((self.seed, step))
        cuts = [self._cut(rng) for _ in range(self.batch)]
        t = rng.integers(0, TRAINING_STEPS, self.batch)[share]
        noise = np.stack([self._noise(step, k) for k in range(self.batch)[share]])
        parts = zip(*(self._window(cut) for cut in cuts[share]), strict=True)
        image, inside, counts = (torch.from_numpy(np.stack(part)) for part in parts)
        return Batch(image, inside, torch.from_numpy(noise), counts, torch.from_numpy(t))

    def _noise(self, step: int, window: int) -> np.ndarray:
        """Noise of one window of a step, (stain z, W, W)."""
        rng = np.random.default_rng((self.seed, step, 1 + window))  # a last 0 would not change it
        return rng.standard_normal((self.spec.channels, self.size, self.size), dtype=np.float32)

    @abstractmethod
    def _cut(self, rng: np.random.Generator) -> AnyCut:
        """Draw where a window is cut, and how it is turned."""

    @abstractmethod
    def _window(self, cut: AnyCut) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return image and inside (stain z, W, W), and counts (p^2, bins, bins, S, G)."""


class TrainingWindows(RandomWindows[PlaneCut]):
    """Random windows of the training region, each a pure function of (seed, step).

    Args:
        pairs: images and raster.
        spec: the network's architecture.
        edge: aligned patches p along a window's edge.
        batch: windows per step.
        seed: of places, turns, timesteps and noise.
        closed: rectangles of the plane that no window touches.
        part: what the windows are for, in words.

    Raises:
        UserError: when images, raster and network do not fit each other, or no window fits.
    """

    def __init__(
        self,
        pairs: PairedImages,
        spec: NetworkSpec,
        *,
        edge: int,
        batch: int,
        seed: int,
        closed: Iterable[Rect] = (),
        part: str = "train",
    ) -> None:
        super().__init__(spec, edge=edge, batch=batch, seed=seed)
        self.pairs = pairs
        self.windows = Windows(sections=spec.sections, planes=int(pairs.images.shape[1]))
        self._check_pairs()
        self.places = Places(pairs.area, size=self.size, margin=spec.half, closed=closed)
        if not len(self.places):
            raise UserError(
                f"training: no window of {self.size} pixels fits the {part} part of the images "
                f"({pairs.height} x {pairs.width})"
            )

    def _check_pairs(self) -> None:
        images, raster, spec = self.pairs.images, self.pairs.raster, self.spec
        for what, found, wanted in (
            ("stains in the images", images.shape[0], len(spec.stains)),
            ("sections in the images", images.shape[1], raster.sections),
            ("genes in the raster", len(raster.panel), spec.genes),
        ):
            if found != wanted:
                raise UserError(f"training: {found} {what}, should be {wanted}")
        if self.pairs.area == EMPTY:
            raise UserError(
                f"training: the images ({self.pairs.height} x {self.pairs.width} pixels) and the "
                f"expression, which covers {tuple(raster.extent)} (y, x, height, width), do not "
                "overlap"
            )
        if raster.pixel_size_um and spec.pixel_size_um not in (None, raster.pixel_size_um):
            raise UserError(
                f"training: expression in pixels of {raster.pixel_size_um} um, images and network "
                f"in pixels of {spec.pixel_size_um} um; they must agree"
            )

    def _cut(self, rng: np.random.Generator) -> PlaneCut:
        y, x = self.places[int(rng.integers(len(self.places)))]
        window = int(rng.integers(len(self.windows)))
        return PlaneCut(y, x, window, int(rng.integers(4)), bool(rng.integers(2)))

    def _window(self, cut: PlaneCut) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        y, x, window, turns, flip = cut
        image, inside = self._image(y, x, window)
        rect = Rect(y, x, self.size, self.size)
        counts = self.pairs.raster.counts(sections=self.windows.expression(window), rect=rect)
        counts = turn(counts.astype(np.float32), turns, flip, axes=(0, 1))
        image, inside = (turn(a, turns, flip, axes=(1, 2)) for a in (image, inside))
        return image, inside, aligned_patches(counts, self.edge)

    def _image(self, y: int, x: int, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Window of the images in [-1, 1] and where it is inside, (stain z, W, W) both."""
        size, sections = self.size, self.windows.images(window)
        image = np.full((len(self.spec.stains), len(sections), size, size), -1, np.float32)
        inside = np.zeros(image.shape, bool)
        area = self.pairs.area
        top, left = max(y, area.y), max(x, area.x)
        bottom, right = min(y + size, area.bottom), min(x + size, area.right)
        box = (slice(top - y, bottom - y), slice(left - x, right - x))
        for k, z in enumerate(sections):
            if 0 <= z < self.pairs.images.shape[1]:
                pixels = np.asarray(self.pairs.images[:, z, top:bottom, left:right])
                image[:, k, *box] = pixels / np.float32(127.5) - 1
                inside[:, k, *box] = True
        return image.reshape(-1, size, size), inside.reshape(-1, size, size)


def aligned_patches(counts: np.ndarray, edge: int) -> np.ndarray:
    """Cut a window into its aligned patches: (p bins, p bins, S, G) -> (p^2, bins, bins, S, G)."""
    bins = len(counts) // edge
    split = counts.reshape(edge, bins, edge, bins, *counts.shape[2:])
    return split.swapaxes(1, 2).reshape(edge * edge, bins, bins, *counts.shape[2:])


def turn(a: np.ndarray, turns: int, flip: bool, axes: tuple[int, int]) -> np.ndarray:
    """Quarter turns, then a mirror, in the plane of `axes`."""
    a = np.rot90(a, turns, axes)
    return np.ascontiguousarray(np.flip(a, axes[1]) if flip else a)
