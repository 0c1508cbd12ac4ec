"""Weights for another gene panel: genes in common keep theirs, by name."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from teramind.errors import UserError
from teramind.network.spec import NetworkSpec
from teramind.network.unet import Network


@torch.no_grad()
def repanel(network: Network, panel: tuple[str, ...]) -> Network:
    """A network that reads `panel`, with the weights of `network`.

    What a gene's weights are: its rows and columns in every weight whose size follows the number
    of genes; gene features come last where they stand beside image features. New genes start with
    random weights of their own, and nothing that was there listens to them yet.

    Args:
        network: whose spec names its genes.
        panel: gene names in the order of the new network.

    Raises:
        UserError: when the network names no genes or has none of the panel's.
    """
    old = network.spec
    if old.panel == panel:
        return network
    if not old.panel:
        raise UserError("train.start: carries no gene names; give them by train.start_panel")
    common = [(panel.index(gene), i) for i, gene in enumerate(old.panel) if gene in panel]
    if not common:
        raise UserError("train.start: has none of the genes of expression.panel")
    new = Network(dataclasses.replace(old, genes=len(panel), panel=panel)).eval()
    axes = gene_axes(old)
    weights = {
        key: carry_over(value, network.state_dict()[key], axes[key], common, old.genes)
        for key, value in new.state_dict().items()
    }
    new.load_state_dict(weights)
    return new


def gene_axes(spec: NetworkSpec) -> dict[str, list[int]]:
    """The axes of every weight whose size follows the number of genes."""
    with torch.device("meta"):
        one, more = (
            Network(dataclasses.replace(spec, genes=spec.genes + k, panel=())).state_dict()
            for k in (0, 1)
        )
    return {
        key: [axis for axis in range(value.dim()) if value.shape[axis] != more[key].shape[axis]]
        for key, value in one.items()
    }


def carry_over(
    new: Tensor, old: Tensor, axes: list[int], common: list[tuple[int, int]], genes: int
) -> Tensor:
    """A weight of the new size with what it shares with the old one.

    Args:
        new: freshly made; axis 0 is what speaks, axis 1, if any, what is listened to.
        old: to take from.
        axes: those of the two that genes stand on, last on each.
        common: (place in the new panel, place in the old one) of the genes in common.
        genes: number of genes of the old panel.
    """

    def places(axis: int) -> tuple[Tensor, Tensor]:
        """Indices on an axis that belong together, in the new and in the old weight."""
        before = old.shape[axis] - (genes if axis in axes else 0)
        rest = [(before + a, before + b) for a, b in common] if axis in axes else []
        pairs = torch.tensor([*((i, i) for i in range(before)), *rest])
        return pairs[:, 0], pairs[:, 1]

    made = new.clone()
    here, there = places(0)
    if new.dim() == 1:
        made[here] = old[there]
        return made
    heard, heard_there = places(1)
    unheard = torch.ones(new.shape[1], dtype=torch.bool)
    unheard[heard] = False
    made[here[:, None], unheard.nonzero().flatten()] = 0
    made[here[:, None], heard] = old[there[:, None], heard_there]
    return made
