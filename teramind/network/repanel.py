"""Weights for another gene panel: genes in common keep theirs, by name."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

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
    random weights of their own, and weights of what was there do not read them yet. What is taken
    over all genes or channels they change nevertheless: the softmax of the gene attention and the
    norms of maps that hold gene features. So do genes that are left out.

    Args:
        network: whose spec names its genes.
        panel: gene names in the order of the new network.

    Raises:
        UserError: when the network names no genes or has none of the panel's, or a network of the
            new size has no place for weights that this one has.
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
    known = _with_plain_skips(network.state_dict(), new.state_dict())
    axes = gene_axes(old)
    weights = {
        key: carry_over(value, known[key], axes[key], common, old.genes)
        for key, value in new.state_dict().items()
    }
    new.load_state_dict(weights)
    return new


def _with_plain_skips(old: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, Tensor]:
    """The old weights, and those of the skips that only the new network multiplies by.

    A block that has as many channels in as out adds its input as it is: the same as a convolution
    with the identity. Such a block cannot take over weights of another kind.
    """
    if lost := sorted(old.keys() - new.keys()):
        raise UserError(
            f"train.start: with so many genes the network has no place for {', '.join(lost)}; "
            "add a gene to expression.panel or leave one out"
        )
    known = dict(old)
    for key in new.keys() - old.keys():
        channels = len(new[key])
        plain = torch.eye(channels)[:, :, None, None, None]
        known[key] = plain if key.endswith("weight") else torch.zeros(channels)
    return known


def gene_axes(spec: NetworkSpec) -> dict[str, list[int]]:
    """The axes of every weight whose size follows the number of genes.

    A block of some sizes has no skip weights, never of two that follow each other.
    """
    with torch.device("meta"):
        sizes = [
            Network(dataclasses.replace(spec, genes=spec.genes + k, panel=())).state_dict()
            for k in range(4)
        ]
    found = {}
    for one, more in pairwise(sizes):
        for key in one.keys() & more.keys():
            shapes = zip(one[key].shape, more[key].shape, strict=True)
            found[key] = [axis for axis, (a, b) in enumerate(shapes) if a != b]
    return found


def carry_over(
    new: Tensor, old: Tensor, axes: list[int], common: list[tuple[int, int]], genes: int
) -> Tensor:
    """A weight of the new size with what it shares with the old one.

    Args:
        new: freshly made; axis 0 is that of outputs, axis 1, if any, that of inputs.
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
