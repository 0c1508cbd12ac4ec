"""Convolutions across the sections of a window as 2-D ones, their kernels folded once."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from teramind.network.blocks import SectionConv, channels_first, fold_sections


class FoldedConv:
    """A convolution of depth 3 over one or two sections, for inference; see `fold_sections`.

    Args:
        conv: its kernel is rounded to `conv.lower`, if any, as training rounds it.
        sections: 1 or 2.
    """

    def __init__(self, conv: SectionConv, sections: int) -> None:
        assert conv.bias is not None
        weight, bias = conv.weight.detach(), conv.bias.detach()
        self.weight = fold_sections(weight, sections).to(conv.lower or weight.dtype)
        self.bias = bias.repeat(sections).to(self.weight)

    def __call__(self, x: Tensor) -> Tensor:
        """(n, y, x, z, inputs) -> (n, y, x, z, outputs), in the type of x."""
        maps = channels_first(x.flatten(3)).to(self.weight.dtype)
        planes = F.conv2d(maps, self.weight, self.bias, padding=1)
        return planes.permute(0, 2, 3, 1).unflatten(3, (x.shape[3], -1)).to(x.dtype)
