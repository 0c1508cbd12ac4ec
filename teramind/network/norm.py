"""Root-mean-square norm over channels, alone and together with the SiLU behind it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

EPSILON = 1e-6


class ChannelNorm(nn.Module):
    """Root-mean-square norm over channels, the last axis: x / rms(x) * weight."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Shape in, shape out; statistics in float32 at least."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), EPSILON)

    def silu(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """SiLU(norm(x) (1 + scale) + shift) of maps (n, y, x, z, c); scale, shift (1 or n, c)."""
        gain = self.weight[None] if scale is None else self.weight * (1 + scale)
        return _NormSilu.apply(x, gain, torch.zeros_like(gain) if shift is None else shift)


class _NormSilu(torch.autograd.Function):
    """SiLU(x / rms(x) gain + shift), its gradient by hand.

    Between the convolutions of a narrow network, time is how often maps are read and written:
    here 5 times on the way in and 8 on the way back, by torch's own gradients twice as often.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        maps = x.flatten(1, -2)  # (n, pixels, c)
        rms = torch.linalg.vector_norm(maps, dim=-1, keepdim=True) / maps.shape[-1] ** 0.5
        inverse = rms.square_().add_(EPSILON).rsqrt_()
        normed = maps * inverse
        bent = torch.addcmul(shift[:, None], normed, gain[:, None])
        ctx.save_for_backward(normed, inverse, gain, bent)
        return F.silu(bent).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed, inverse, gain, bent = ctx.saved_tensors
        shape = gradients[0].shape
        to_bent = torch.ops.aten.silu_backward(gradients[0].reshape(bent.shape), bent)
        to_shift = to_bent.sum(1).sum_to_size(gain.shape)
        along = to_bent * normed
        to_gain = along.sum(1).sum_to_size(gain.shape)
        parallel = (along @ gain[:, :, None]).div_(gain.shape[-1])
        to_normed = to_bent.mul_(gain[:, None])
        to_maps = to_normed.addcmul_(normed, parallel, value=-1).mul_(inverse)
        return to_maps.view(shape), to_gain, to_shift
