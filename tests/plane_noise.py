"""The published function in one call: a noise estimate by the plain modules.

Training and inference have ways of their own; the goldens, and that those ways agree, are checked
with this one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from teramind.network import Network
from teramind.network.unet import plane_corners


def predict_noise(
    network: Network, state: Tensor, counts: Tensor, t: int, *, rows: int | None = None
) -> Tensor:
    """Noise of the (rows-1)(cols-1) patches half a patch right and down of aligned ones.

    Args:
        network: any.
        state: (rows cols, stain z, P, P), noisy aligned patches, row-major.
        counts: (rows cols, bins, bins, S, G), raw counts.
        t: training timestep of the whole plane.
        rows: patches down; None of a square plane.
    """
    return _both(network, state, counts, t, rows, aligned=False)[0]


def predict_both(network: Network, state: Tensor, counts: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """The same of a square plane, and the noise of the aligned patches."""
    shifted, aligned = _both(network, state, counts, t, None, aligned=True)
    assert aligned is not None
    return shifted, aligned


def _both(
    network: Network, state: Tensor, counts: Tensor, t: int, rows: int | None, *, aligned: bool
) -> tuple[Tensor, Tensor | None]:
    rows = rows or math.isqrt(len(state))
    corners = plane_corners(rows, len(state) // rows, state.device)
    return network(state, counts, torch.tensor([t]), corners, aligned=aligned)
