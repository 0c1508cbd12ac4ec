"""Where training starts: at the best linear estimate that the published architecture can express.

The published network has no path from input to output but through norms, and its estimate must be
exact to 1 % where noise is nearly all there is: from random weights that takes it many thousands of
steps. Here the estimate starts as x + c(t) g, where x is the noisy image, c the scale at which an
error of g weighs the same at every timestep (the preconditioning of arXiv 2206.00364, in units of
noise), and g what the last block adds. Its last convolution starts at the least-squares readout.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from teramind.network.unet import Network, sinusoid, stains_last
from teramind.schedule import TRAINING_STEPS
from teramind.variance import alphas_cumprod

CARRIER = 200.0
"""Constant in one channel that keeps the head's norm from bending the copied signal."""

CONSTANT = 8.0
"""Constant in the first channel inside the last block, which does the same for its second norm."""

GAIN = 0.1
"""Weight of that norm: small enough for the nonlinearity behind it to be nearly linear."""

KNEE = -2.0
"""Log of a pixel's signal-to-noise ratio above which the first channels of x are heard."""

MIXED = 0.3
"""Part of the random weights that the channels of the last block keep."""

SMOOTH = 0.01
"""Largest change from one timestep to the next of a wave that the time embedding keeps."""

BEND = 3.0
"""Spread of the weights of the time embedding's first layer: how far it departs from linear."""


def has_room(network: Network) -> bool:
    """Say whether the network has the channels for the start: two a stain and one more."""
    return network.spec.base > 2 * len(network.spec.stains)


def copy_weights(network: Network) -> set[str]:
    """Names of the weights that carry x to the output and scale g with the timestep.

    Where noise is nearly all there is, an image error of 1 % is an error of 1e-4 of theirs: they
    stay fixed in training and must not be rounded when they are stored.
    """
    block = "decoder.0.2.block."
    whole = (
        "stem.",
        "head.",
        "head_norm.",
        "time_in.",
        "time_out.",
        f"{block}skip.",
        f"{block}time.",
    )
    names = {name for name, _ in network.named_parameters() if name.startswith(whole)}
    return names | {f"{block}conv_out.bias"}


def fix_copy(network: Network) -> None:
    """Exempt `copy_weights` from training."""
    for name in copy_weights(network):
        network.get_parameter(name).requires_grad_(False)


def carries_copy(network: Network) -> bool:
    """Say whether the weights are such that the copy of x should stay as `start_as_copy` set it."""
    if not has_room(network):
        return False
    carrier = _last_block(network).skip.bias[2 * len(network.spec.stains)]
    return math.isclose(float(carrier.detach()), CARRIER)


@torch.no_grad()
def start_as_copy(network: Network, spread: float) -> None:
    """Make the estimate x; `spread` is the standard deviation of the images in [-1, 1].

    Between the last block and the head, channels 2 s and 2 s + 1 carry stain s and its negative:
    silu(u) - silu(-u) = u. The next one carries a constant.
    """
    stains, base = len(network.spec.stains), network.spec.base
    block, stem, head = _last_block(network), _any(network.stem), _any(network.head)
    for module in (head, block.skip, block.conv_out):
        for parameter in module.parameters():
            parameter.zero_()
    stem.weight[: 2 * stains + 1] = 0
    stem.bias[: 2 * stains + 1] = 0
    block.skip.bias[2 * stains] = CARRIER
    for stain in range(stains):
        for sign, channel in ((1, 2 * stain), (-1, 2 * stain + 1)):
            stem.weight[channel, stain, 0, 1, 1] = sign
            block.skip.weight[channel, base + channel] = 1  # the stem's output follows h
            head.weight[stain, channel, 0, 1, 1] = sign * CARRIER / base**0.5
    _show_image(network)
    _vary_time(network)
    _fade(network, spread)


def _any(module: Any) -> Any:
    """The same, for reading its weights: torch types them as tensor or module."""
    return module


def _last_block(network: Network) -> Any:
    return _any(network.get_submodule("decoder.0.2.block"))


def _heard(row: int, stains: int) -> tuple[int | None, bool]:
    """Which stain channel `row` inside the last block starts with, and whether always.

    Channel 0 is the constant; then the stains where they stand out from the noise; then the
    stains at all timesteps; the rest start as they are, and at all timesteps.
    """
    if 1 <= row <= 2 * stains:
        return (row - 1) % stains, row > stains
    return None, True


def _show_image(network: Network) -> None:
    """Let channels inside the last block start as the constant and as x."""
    stains, base = len(network.spec.stains), network.spec.base
    block = _last_block(network)
    block.norm_out.weight.fill_(GAIN)
    weight = block.conv_in.weight
    weight *= MIXED
    weight[0] = 0
    block.conv_in.bias[0] = CONSTANT
    for row in range(1, base):
        stain, _ = _heard(row, stains)
        if stain is not None:
            weight[row, base + 2 * stain, 1, 1, 1] += 1
            weight[row, base + 2 * stain + 1, 1, 1, 1] -= 1


def _vary_time(network: Network) -> None:
    """Make the time embedding smooth functions of t, each of mean 0 and deviation 1.

    Waves that repeat within the run are silenced.
    """
    when = torch.arange(TRAINING_STEPS)
    first, second = network.time_in, network.time_out
    _, waves = sinusoid(when, network.spec.base).chunk(2, 1)
    fast = waves.diff(dim=0).abs().amax(0) > SMOOTH
    first.weight.normal_(0, BEND)
    first.weight[:, fast.repeat(2)] = 0
    first.bias.uniform_(-BEND, BEND)
    second.bias.zero_()
    features = network.embed_time(when)
    deviation = features.std(0).clamp(min=1e-3)
    second.weight /= deviation[:, None]
    second.bias.copy_(-features.mean(0) / deviation)


def _fade(network: Network, spread: float) -> None:
    """Fit the time layer of the last block to scale by c(t) (and the early channels by more)."""
    alpha = torch.from_numpy(alphas_cumprod())
    signal = alpha * spread**2
    scale = (signal / (signal + 1 - alpha)).sqrt()
    clear = torch.sigmoid((signal / (1 - alpha)).log() - KNEE)
    layer, stains = _last_block(network).time, len(network.spec.stains)
    channels = layer.out_features // 2
    wanted = [scale if _heard(row, stains)[1] else scale * clear for row in range(channels)]
    features = F.silu(network.embed_time(torch.arange(TRAINING_STEPS))).double()
    inputs = torch.cat([features, torch.ones_like(features[:, :1])], 1)
    fitted = torch.linalg.lstsq(inputs, torch.stack(wanted, 1) - 1, driver="gelsd").solution
    layer.weight.zero_()
    layer.bias.zero_()
    layer.weight[:channels] = fitted[:-1].T
    layer.bias[:channels] = fitted[-1]


class Readout:
    """Least squares for the last convolution: what it reads against what it should add to x."""

    RIDGE = 1e-8
    """Part of the mean square of the inputs added to each, for a stable solution."""

    SAMPLES = 6000
    """Pixels taken of each call."""

    def __init__(self, network: Network) -> None:
        self.layer = _last_block(network).conv_out
        self.stains = len(network.spec.stains)
        inputs = self.layer.weight[0].numel()
        self._squares = torch.zeros(inputs, inputs, dtype=torch.float64)
        self._products = torch.zeros(inputs, self.stains, dtype=torch.float64)

    def add(self, maps: Tensor, missing: Tensor, there: Tensor, weight: float) -> None:
        """Take in one call: `maps` (m, y, x, z, c) and noise - x, (m, stain z, y, x).

        `there` (m, z) says which sections count.
        """
        number = maps[..., 0].numel()
        pick = torch.linspace(0, number - 1, min(self.SAMPLES, number)).long()
        pick = pick[there[:, None, None].expand(maps.shape[:4]).flatten()[pick]]
        inputs = _neighbourhoods(maps, pick).double()
        outputs = stains_last(missing, self.stains).flatten(0, 3)[pick].double()
        self._squares += weight * inputs.T @ inputs
        self._products += weight * inputs.T @ outputs

    @torch.no_grad()
    def set(self) -> None:
        """Give the convolution the solution; channels 2 s and 2 s + 1 get it with either sign."""
        ridge = self.RIDGE * self._squares.diagonal().mean() * torch.eye(len(self._squares))
        solution = torch.linalg.solve(self._squares + ridge, self._products)
        for stain, weights in enumerate(solution.T):
            kernel = weights.view_as(self.layer.weight[0])
            self.layer.weight[2 * stain] = kernel
            self.layer.weight[2 * stain + 1] = -kernel


def _neighbourhoods(maps: Tensor, pick: Tensor) -> Tensor:
    """What a 3 x 3 x 3 convolution sees at places of maps (n, y, x, z, c): (k, c z' y' x').

    `pick` (k,) numbers the places row by row.
    """
    padded = F.pad(maps, (0, 0, *(1, 1) * 3))
    for axis in (3, 1, 2):  # z first, as kernels are (z, y, x)
        padded = padded.unfold(axis, 3, 1)  # a view
    return padded[torch.unravel_index(pick, maps.shape[:4])].flatten(1)
