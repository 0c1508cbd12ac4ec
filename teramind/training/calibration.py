"""What training starts from, measured on windows that it does not use: spread and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from teramind.errors import UserError
from teramind.files import digest
from teramind.network import Network
from teramind.network.initial import Readout, has_room, start_as_copy
from teramind.network.initial_genes import wake_genes
from teramind.schedule import TRAINING_STEPS
from teramind.training.dataset import Batch, WindowSource
from teramind.training.objective import (
    OUTSIDE,
    balanced_weight,
    noisy_patches,
    sections_there,
    to_patches,
    worth_learning,
)

FIRST, BATCHES = 10**9, 32
"""First and number of the batches that are measured: beyond any training step."""

MEASURED = slice(0, 4)
"""Windows of a batch that are measured: a start need not take longer for large batches."""

LEAST_SPREAD = 0.02
"""Standard deviation taken for images that vary less."""

CONSTANT = 1e-9
"""Variance below which a stain's images are constant but for rounding."""


def calibration_batches(
    windows: WindowSource,
    batches: int = BATCHES,
    timesteps: Callable[[Tensor], Tensor] = worth_learning,
) -> Iterator[Batch]:
    """Batches that training does not use, at what `timesteps` makes of ones spread over the run."""
    for k in range(batches):
        t = (2 * k + 1) * TRAINING_STEPS // (2 * batches)
        batch = windows(FIRST + k, MEASURED)
        yield batch._replace(t=timesteps(torch.full_like(batch.t, t)))


def fingerprint(windows: WindowSource) -> str:
    """A digest of some windows: it differs between data sets, splits, sizes and seeds."""
    return digest(b"".join(part.numpy().tobytes() for part in windows(FIRST)))


def weights_digest(network: Network) -> str:
    """A digest of a network's weights, to tell it from others to go on from."""
    each = (digest(value.numpy().tobytes()) for value in network.state_dict().values())
    return digest("".join(each).encode())


def image_spread(windows: WindowSource, stains: Sequence[str]) -> Tensor:
    """Standard deviation of each stain's images in [-1, 1], (stains,).

    Raises:
        UserError: when a stain is constant, or no window holds a molecule.
    """
    moments, molecules = torch.zeros(3, len(stains), dtype=torch.float64), 0.0
    for batch in calibration_batches(windows):
        image = batch.image.unflatten(1, (len(stains), -1)).double()
        inside = batch.inside.view_as(image)
        powers = (inside, image * inside, image.square() * inside)
        moments += torch.stack([power.sum((0, 2, 3, 4)).double() for power in powers])
        molecules += float(batch.counts.sum())
    pixels, total, squares = moments
    variance = squares / pixels - (total / pixels).square()
    for stain, found in zip(stains, variance.tolist(), strict=True):
        if found < CONSTANT:
            raise UserError(f"training: the images of {stain} are constant; nothing to learn")
    if not molecules:
        raise UserError(
            "training: no molecule lies under the images; images and expression do not overlap"
        )
    return variance.clamp(min=LEAST_SPREAD**2).sqrt().float()


def set_starting_weights(
    network: Network, windows: WindowSource, spread: Tensor, device: torch.device
) -> None:
    """Give a new network the weights of `network.initial_genes` and, with room, `network.initial`.

    Args:
        network: on the CPU, and there it stays.
        windows: what is measured.
        spread: see `image_spread`.
        device: where the network runs while it is measured.
    """
    wake_genes(network, [batch.counts.flatten(0, 1) for batch in calibration_batches(windows)])
    if has_room(network):
        start_as_copy(network, float(spread.square().mean().sqrt()))
        _fit_readout(network, windows, spread, device)


@torch.no_grad()
def _fit_readout(
    network: Network, windows: WindowSource, spread: Tensor, device: torch.device
) -> None:
    patch, half = network.spec.patch, network.spec.half
    readout = Readout(network)
    read: list[Tensor] = []
    hook = readout.layer.register_forward_pre_hook(lambda _, maps: read.append(maps[0]))
    network.eval().to(device)
    for batch in calibration_batches(windows):
        image, inside, noise, counts, t = (part.to(device) for part in batch)
        patches = noisy_patches(image, inside, noise, t, patch=patch, outside=OUTSIDE)
        copied, _ = network(
            patches.state, counts.flatten(0, 1), patches.t, patches.corners, aligned=False
        )
        missing = to_patches(noise[..., half:-half, half:-half], patch) - copied
        weight = float(balanced_weight(batch.t, spread).mean())
        sections = sections_there(batch.inside)[:, : network.spec.images]  # as in every stain
        there = sections.repeat_interleave(len(missing) // len(sections), 0)
        readout.add(read.pop().cpu(), missing.cpu(), there, weight)
    hook.remove()
    network.train().cpu()
    readout.set()
