"""The norm and the SiLU behind it: the formula, and gradients by hand against numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from teramind.network.norm import EPSILON, ChannelNorm


def formula(norm: ChannelNorm, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    rms = (x.square().mean(-1, keepdim=True) + EPSILON).sqrt()
    per_patch = (slice(None), None, None, None)
    return F.silu(x / rms * norm.weight * (1 + scale[per_patch]) + shift[per_patch])


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def norm() -> ChannelNorm:
    torch.manual_seed(0)
    module = ChannelNorm(5).double()
    with torch.no_grad():
        module.weight.uniform_(0.5, 2)
    return module


@pytest.mark.parametrize("times", [1, 3])
def test_norm_and_silu_are_the_formula(norm: ChannelNorm, times: int) -> None:
    x, scale, shift = random(3, 4, 2, 2, 5), random(times, 5), random(times, 5)
    torch.testing.assert_close(norm.silu(x, scale, shift), formula(norm, x, scale, shift))


def test_without_scale_and_shift_it_is_the_plain_norm(norm: ChannelNorm) -> None:
    x = random(3, 4, 2, 2, 5)
    torch.testing.assert_close(norm.silu(x), F.silu(norm(x)))


@pytest.mark.parametrize("times", [1, 3])
def test_gradients_are_those_of_small_differences(norm: ChannelNorm, times: int) -> None:
    x, scale, shift = random(3, 2, 1, 2, 5), random(times, 5), random(times, 5)

    def silu(weight: Tensor, *arguments: Tensor) -> Tensor:
        return torch.func.functional_call(_Silu(norm), {"norm.weight": weight}, arguments)

    assert torch.autograd.gradcheck(silu, (norm.weight, x, scale, shift))


def test_a_pixel_of_zeros_has_finite_gradients(norm: ChannelNorm) -> None:
    x = torch.zeros(1, 1, 1, 1, 5, dtype=torch.float64, requires_grad=True)
    norm.silu(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


class _Silu(torch.nn.Module):
    """`ChannelNorm.silu` as a module's call."""

    def __init__(self, norm: ChannelNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return self.norm.silu(x, scale, shift)
