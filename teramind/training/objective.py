"""What training learns: noisy windows, how much each timestep counts, and the loss.

DDPM is arXiv 2006.11239, the two-output loss is arXiv 2503.01220.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teramind.network.unet import Network, plane_corners
from teramind.schedule import TRAINING_STEPS
from teramind.variance import alphas_cumprod

OUTSIDE = -1.0
"""What the network sees beyond the images when it samples."""

LEVELS = 1.7
"""Standard deviation of the noise levels that are learned: the log of noise over signal."""


def alpha_at(t: Tensor) -> Tensor:
    """Alpha-bar at training timesteps t, float64."""
    return torch.from_numpy(alphas_cumprod()).to(t.device)[t]


def add_noise(image: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Diffuse `image` (n, ...) to timesteps t (n,): sqrt(a) image + sqrt(1 - a) noise."""
    alpha = alpha_at(t).to(image.dtype).view(-1, *[1] * (image.dim() - 1))
    return alpha.sqrt() * image + (1 - alpha).sqrt() * noise


def to_patches(plane: Tensor, patch: int) -> Tensor:
    """Cut planes into patches: (b, c, rows P, cols P) -> (b rows cols, c, P, P), row-major."""
    b, c, height, width = plane.shape
    rows, cols = height // patch, width // patch
    split = plane.view(b, c, rows, patch, cols, patch).permute(0, 2, 4, 1, 3, 5)
    return split.reshape(b * rows * cols, c, patch, patch)


def to_planes(patches: Tensor, planes: int) -> Tensor:
    """Inverse of `to_patches` for so many square planes."""
    edge = math.isqrt(len(patches) // planes)
    split = patches.unflatten(0, (planes, edge, edge)).permute(0, 3, 1, 4, 2, 5)
    return split.flatten(4, 5).flatten(2, 3)


def balanced_weight(t: Tensor, spread: Tensor) -> Tensor:
    """Weight of the noise's squared error under which every timestep matters alike.

    It is one over the squared error that the best linear estimate from the pixel alone leaves
    (arXiv 2206.00364 in units of noise).

    Args:
        t: (b,) training timesteps.
        spread: (stains,), standard deviation of the images in [-1, 1].

    Returns:
        (b, stains).
    """
    alpha = alpha_at(t)[:, None]
    return ((1 - alpha) / (alpha * spread.to(alpha).square()) + 1).to(spread)


def worth_learning(t: Tensor) -> Tensor:
    """Uniform timesteps -> timesteps whose log of noise over signal is normal around 0.

    Uniform timesteps are three quarters noise, while what shows in an image is decided below
    that; arXiv 2206.00364 draws the noise this way.
    """
    quantiles = (t.double() + 0.5) / TRAINING_STEPS
    edges = torch.from_numpy(learned_quantiles())
    return torch.searchsorted(edges, quantiles).clamp(max=TRAINING_STEPS - 1)


def learned_quantiles() -> NDArray[np.float64]:
    """Part of the learned noise levels up to each training timestep, (1000,); see `LEVELS`."""
    alpha = alphas_cumprod()
    level = np.log((1 - alpha) / alpha) / 2
    weight = np.exp(-np.square(level / LEVELS) / 2) * np.gradient(level)
    return np.cumsum(weight) / weight.sum()


class WindowPatches(NamedTuple):
    """Noisy aligned patches of b windows, row-major, and the shifted patches between them.

    `state` (n, stain z, P, P), `t` (n,) and `corners` (m, 4) as `Network.forward` takes them.
    """

    state: Tensor
    t: Tensor
    corners: Tensor


def noisy_patches(
    image: Tensor, inside: Tensor, noise: Tensor, t: Tensor, *, patch: int, outside: float
) -> WindowPatches:
    """Add noise to square windows and cut them into patches; see `window_loss`."""
    noisy = torch.where(inside.any(1, keepdim=True), add_noise(image, noise, t), outside)
    edge = image.shape[-1] // patch
    one = plane_corners(edge, edge, image.device)
    offsets = edge**2 * torch.arange(len(image), device=image.device)
    corners = (one + offsets[:, None, None]).flatten(0, 1)
    return WindowPatches(to_patches(noisy, patch), t.repeat_interleave(edge**2), corners)


def window_loss(
    network: Network,
    *,
    image: Tensor,
    inside: Tensor,
    noise: Tensor,
    counts: Tensor,
    t: Tensor,
    outside: float = OUTSIDE,
    aligned: bool = False,
    weight: Tensor | None = None,
    borders: float = 0.0,
) -> Tensor:
    """Training loss of b square windows of p x p aligned patches (W = p P pixels).

    The published loss is `aligned=True, outside=0`. Leaving the aligned output out spares p^2 of
    the p^2 + (p-1)^2 decoder passes, and sampling never uses it. Beside a border both patches err,
    each in its own way, and what shows is where they differ: `borders` makes that count.

    Args:
        network: in training mode for dropout.
        image: (b, stain z, W, W) in [-1, 1].
        inside: (b, stain z, W, W) or (b, 1, W, W), whether a pixel belongs to the image; a section
            that is nowhere inside is missing, seen as the image has it and not learned.
        noise: (b, stain z, W, W), standard normal.
        counts: (b, p^2, bins, bins, S, G), raw counts of the aligned patches, row-major.
        t: (b,) training timesteps.
        outside: what the network sees beyond the image.
        aligned: add the squared error on the aligned patches, inside the image only.
        weight: (b, stains), of the squared errors; 1 by default.
        borders: weight of the mean squared step that the error takes across the lines where
            patches end, shifted or aligned ones.

    Returns:
        Scalar.
    """
    patch, half = network.spec.patch, network.spec.half
    patches = noisy_patches(image, inside, noise, t, patch=patch, outside=outside)
    shifted, both = network(
        patches.state, counts.flatten(0, 1), patches.t, patches.corners, aligned=aligned
    )
    if weight is None:
        weight = noise.new_ones(len(t), len(network.spec.stains))
    there = sections_there(inside.expand_as(image))
    weight = weight / there.unflatten(1, (weight.shape[1], -1)).float().mean(2)
    error = noise[..., half:-half, half:-half] - to_planes(shifted, len(t))
    error = error * there[..., None, None]
    loss = _weighted(error, weight)
    if borders:
        down = error[..., half::half, :] - error[..., half - 1 : -1 : half, :]
        right = error[..., half::half] - error[..., half - 1 : -1 : half]
        loss = loss + borders * (_weighted(down, weight) + _weighted(right, weight)) / 2
    if both is not None:
        loss = loss + _weighted((noise - to_planes(both, len(t))) * inside, weight)
    return loss


def sections_there(inside: Tensor) -> Tensor:
    """Which sections are not missing: (b, stain z, W, W) -> (b, stain z); see `window_loss`."""
    return inside.flatten(2).any(2)


def _weighted(error: Tensor, weight: Tensor) -> Tensor:
    """Mean square of the error (b, stain z, y, x), weighed by window and stain (b, stains)."""
    mean = error.square().unflatten(1, (weight.shape[1], -1)).mean((2, 3, 4))
    return (mean * weight).mean()
