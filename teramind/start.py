"""What training starts from, measured on windows that it does not use: spread and weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from teramind.dataset import Batch, TrainingWindows
from teramind.diffusion import OUTSIDE, balanced_weight, noisy_patches, to_patches, worth_learning
from teramind.network import Network
from teramind.network.initial import Readout, has_room, start_as_copy, wake_genes
from teramind.schedule import TRAINING_STEPS

FIRST, BATCHES = 10**9, 32
"""First and number of the batches that are measured: beyond any training step."""

LEAST_SPREAD = 0.02
"""Standard deviation below which a stain's images count as constant."""


def calibration(windows: TrainingWindows) -> Iterator[Batch]:
    """Batches that training does not use, their timesteps spread over the run."""
    for k in range(BATCHES):
        t = (2 * k + 1) * TRAINING_STEPS // (2 * BATCHES)
        batch = windows(FIRST + k)
        yield batch._replace(t=worth_learning(torch.full_like(batch.t, t)))


def image_spread(windows: TrainingWindows, stains: int) -> Tensor:
    """Standard deviation of each stain's images in [-1, 1], (stains,)."""
    moments = torch.zeros(3, stains, dtype=torch.float64)
    for batch in calibration(windows):
        image = batch.image.unflatten(1, (stains, -1)).double()
        inside = batch.inside[:, None].expand_as(image)
        powers = (inside, image * inside, image.square() * inside)
        moments += torch.stack([power.sum((0, 2, 3, 4)).double() for power in powers])
    pixels, total, squares = moments
    variance = squares / pixels - (total / pixels).square()
    return variance.clamp(min=LEAST_SPREAD**2).sqrt().float()


def set_starting_weights(network: Network, windows: TrainingWindows, spread: Tensor) -> None:
    """Give a new network the weights of `network.initial`; small ones only audible genes."""
    counts = [batch.counts.flatten(0, 1) for batch in calibration(windows)]
    wake_genes(network, torch.cat(counts))
    if has_room(network):
        start_as_copy(network, float(spread.square().mean().sqrt()))
        _fit_readout(network, windows, spread)


@torch.no_grad()
def _fit_readout(network: Network, windows: TrainingWindows, spread: Tensor) -> None:
    patch, half = network.spec.patch, network.spec.half
    readout = Readout(network)
    read: list[Tensor] = []
    hook = readout.layer.register_forward_pre_hook(lambda _, maps: read.append(maps[0]))
    network.eval()
    for image, inside, noise, counts, t in calibration(windows):
        patches = noisy_patches(image, inside, noise, t, patch=patch, outside=OUTSIDE)
        copied, _ = network(
            patches.state, counts.flatten(0, 1), patches.t, patches.corners, aligned=False
        )
        missing = to_patches(noise[..., half:-half, half:-half], patch) - copied
        readout.add(read.pop(), missing, float(balanced_weight(t, spread).mean()))
    hook.remove()
    readout.set()
    network.train()
