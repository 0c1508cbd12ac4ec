"""Frechet distance between the features of two sets of images, honest for few of them.

Distance: M. Heusel et al., NeurIPS 2017 (FID), between Gaussians fitted to features. Covariances
are shrunk (O. Ledoit and M. Wolf, J Multivariate Analysis 88, 2004), because an evaluation has
fewer tiles than features have dimensions. What remains of the bias is the same on both sides: the
floor, real against real, is taken between as many tiles of as many different places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from teramind.geometry import Rect

Floats = NDArray[np.float64]
Features = Callable[[NDArray[np.uint8]], NDArray[np.floating]]
"""Images (n, y, x) -> features (n, d)."""

TILE = 128
"""Edge of a tile in pixels."""

MOST_TILES = 2048
"""Tiles at most; this bounds memory and time, whatever the area."""

_BATCH = 32


class Gaussian(NamedTuple):
    """Mean (d,) and covariance (d, d); in each direction left out of them the variance `least`."""

    mean: Floats
    covariance: Floats
    least: float = 0.0


class Frechet(NamedTuple):
    """Distance of generated from real tiles, the floor, and tiles on either side of each."""

    generated: float
    floor: float
    tiles: int


def fit(features: NDArray[np.floating], dimensions: int | None = None) -> Gaussian:
    """Fit a Gaussian to features (n, d): mean, and covariance shrunk towards a multiple of one.

    Args:
        features: one row per image.
        dimensions: of the space they lie in, when d directions of it hold all they differ by.
    """
    x = features.astype(np.float64)
    n, d = x.shape
    mean = x.mean(0)
    x = x - mean
    sample = x.T @ x / n
    size = np.trace(sample) / (dimensions or d)
    off = (sample**2).sum() - (dimensions or d) * size**2
    noise = ((x**2).sum(1) ** 2).sum() / n**2 - (sample**2).sum() / n
    share = min(max(noise, 0.0) / off, 1.0) if off > 0 else 1.0
    return Gaussian(mean, (1 - share) * sample + share * size * np.eye(d), float(share * size))


def distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Frechet (Wasserstein-2) distance of two Gaussians."""
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ b.covariance @ root)
    spread = np.trace(a.covariance) + np.trace(b.covariance)
    apart = ((a.mean - b.mean) ** 2).sum() + spread - 2 * np.sqrt(np.clip(cross, 0, None)).sum()
    return float(max(apart, 0.0))


def between(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Distance of the Gaussians fitted to two sets of features (n, d) and (m, d).

    With fewer rows than dimensions it is worked out in the directions in which rows differ; all
    others have one variance in each set and add up in closed form.
    """
    d = a.shape[1]
    if len(a) + len(b) >= d:
        return distance(fit(a), fit(b))
    a, b = a.astype(np.float64), b.astype(np.float64)
    apart = a.mean(0) - b.mean(0)
    rows = np.concatenate([a - a.mean(0), b - b.mean(0), apart[None]])
    basis = np.linalg.qr(rows.T)[0]
    one, other = fit(a @ basis, d), fit(b @ basis, d)
    rest = (d - basis.shape[1]) * (np.sqrt(one.least) - np.sqrt(other.least)) ** 2
    return float(distance(one, other) + rest)


def frechet(made: NDArray[np.floating], real: NDArray[np.floating]) -> Frechet:
    """Distance and floor from the features (n, d) of the same tiles, generated and real.

    Tiles are split in two halves, every other one in each. The floor is the distance of the real
    halves; the distance is that of the generated first half from the real second, so that it
    compares as many tiles of as different places.
    """
    if len(real) < 4:
        return Frechet(float("nan"), float("nan"), len(real) // 2)
    second = real[1::2]
    first = slice(0, 2 * len(second), 2)
    return Frechet(between(made[first], second), between(real[first], second), len(second))


def tiles_of(area: Rect, sections: int) -> list[tuple[int, Rect]]:
    """Whole tiles of every section as (section, rectangle), in an order that mixes places.

    Neighbours in a row, in a column and along z fall into different halves. Of more than
    `MOST_TILES` pairs are drawn (seeded): every so many-th would hit the same columns in each row.
    """
    places = [rect for rect in area.blocks(TILE) if rect.height == rect.width == TILE]
    halves: tuple[list[tuple[int, Rect]], list[tuple[int, Rect]]] = ([], [])
    for section in range(sections):
        for rect in places:
            step = (rect.y - area.y) // TILE + (rect.x - area.x) // TILE + section
            halves[step % 2].append((section, rect))
    pairs = list(zip(*halves, strict=False))
    drawn = np.random.default_rng(0).permutation(len(pairs))[: MOST_TILES // 2]
    return [tile for k in sorted(drawn) for tile in pairs[k]]


def features_of(features: Features, images: Iterator[NDArray[np.uint8]]) -> NDArray[np.floating]:
    """Features (n, d) of images, a few at a time."""
    found, batch = [], []
    for image in images:
        batch.append(image)
        if len(batch) == _BATCH:
            found.append(features(np.stack(batch)))
            batch = []
    if batch:
        found.append(features(np.stack(batch)))
    return np.concatenate(found) if found else np.empty((0, 1))
