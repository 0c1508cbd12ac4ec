"""What one patch costs in the network, counted on tensors that hold no numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from teramind.network import Network, NetworkSpec
from teramind.network.blocks import SectionConv


@dataclass(frozen=True)
class PatchCost:
    """Floating-point operations of one patch and step, and the bytes of its features.

    Multiplications and additions count apart; norms and activations are left out, as torch's
    FlopCounterMode does. Convolutions count as direct 3-D ones, zero padding included, so that
    speeds of different engines compare; ours leaves a part of them out.

    Attributes:
        genes: the gene branch.
        encode: encoder and middle.
        decode: decoder.
        feature_bytes: float32 features of an encoded patch, which its decoders read.
        gene_bytes: of these, the gene branch's.
        weights: number of weights.
    """

    genes: int
    encode: int
    decode: int
    feature_bytes: int
    gene_bytes: int
    weights: int

    def flops(self, *, encoded: int, decoded: int) -> int:
        """Operations of so many encoder and decoder passes.

        The gene branch counts with every encoder pass, although the engine keeps its features
        from step to step while there is room.
        """
        return encoded * (self.genes + self.encode) + decoded * self.decode


@torch.no_grad()
def patch_cost(spec: NetworkSpec) -> PatchCost:
    """Count a network of these sizes; takes no memory to speak of."""
    with torch.device("meta"):
        network = Network(spec).eval()
        for module in network.modules():
            if isinstance(module, SectionConv):
                module.forward = partial(_direct, module)  # type: ignore[method-assign]
        counts = torch.empty(1, spec.bins, spec.bins, spec.sections, spec.genes)
        state = torch.empty(1, spec.channels, spec.patch, spec.patch)
        time = network.embed_time(torch.zeros(1, dtype=torch.long))
    genes, of_genes = _counted(lambda: network.genes(counts))
    encoded, of_encoder = _counted(lambda: network.encode(state, genes, time))
    _, of_decoder = _counted(lambda: network.decode(encoded, time))
    maps = [encoded.middle, *(m for level in encoded.skips for m in level), *encoded.genes]
    return PatchCost(
        genes=of_genes,
        encode=of_encoder,
        decode=of_decoder,
        feature_bytes=sum(m.nbytes for m in maps),
        gene_bytes=sum(m.nbytes for m in encoded.genes),
        weights=sum(p.numel() for p in network.parameters()),
    )


def _direct(convolution: SectionConv, x: torch.Tensor) -> torch.Tensor:
    """The 3-D convolution that a `SectionConv` equals: (n, y, x, z, c)."""
    found = torch.nn.Conv3d.forward(convolution, x.permute(0, 4, 3, 1, 2))
    return found.permute(0, 3, 4, 2, 1)


def _counted(function: Callable[[], Any]) -> tuple[Any, int]:
    with FlopCounterMode(display=False) as counter:
        out = function()
    return out, int(counter.get_total_flops())
