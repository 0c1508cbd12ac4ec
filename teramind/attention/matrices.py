"""Gene-gene attention of patches, as the network has it and with sections taken away."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from teramind.network import Network, NetworkSpec
from teramind.network.genes import GeneAttention

BATCH = 32
"""Patches whose matrices are in memory together."""


def kept_sections(spec: NetworkSpec) -> list[list[int]]:
    """Sections of a window that stay when the others are emptied, one list per matrix.

    First every pair of neighbours of which at least one is drawn, from the lowest up, then all of
    them. The k-th section drawn so has pair k below it and pair k + 1 above it. For S = 4 these
    are the published four: 0-1, 1-2, 2-3, all. A window of one section has no pairs.
    """
    first = spec.first_image
    pairs = range(first - 1, first + spec.images) if spec.sections > 1 else range(0)
    return [*([z, z + 1] for z in pairs), list(range(spec.sections))]


@torch.inference_mode()
def gene_attention(network: Network, counts: Tensor) -> Tensor:
    """Attention of genes to genes in the gene branch (arXiv 2503.01220), from counts alone.

    Args:
        network: from `load_network`.
        counts: (patches, bins, bins, S, G), raw counts of aligned patches in one z-window.

    Returns:
        (k, patches, G, G): row g is what gene g attends to and sums to 1. For S = 4, k = 4: only
        sections 0-1, 1-2 or 2-3 of the window kept, and all. For S = 8 and 16 likewise every pair
        of neighbours around the drawn sections, then all (k = 6 and 10); for S = 1 only all.
        Memory: the result and one batch of `BATCH` patches.

    Raises:
        ValueError: when the shape does not fit the network.
    """
    spec = network.spec
    wanted = (len(counts), spec.bins, spec.bins, spec.sections, spec.genes)
    if tuple(counts.shape) != wanted:
        raise ValueError(f"counts are {tuple(counts.shape)}, the network takes {wanted}")
    attention = network.genes.attention
    genes_first = counts.to(attention.query.weight).permute(0, 4, 3, 1, 2)
    kept = kept_sections(spec)
    result = genes_first.new_empty(len(kept), len(counts), spec.genes, spec.genes)
    for start in range(0, len(counts), BATCH):
        part = slice(start, start + BATCH)
        for k, matrix in enumerate(matrices(attention, genes_first[part], kept)):
            result[k, part] = matrix
    return result


def matrices(
    attention: GeneAttention, counts: Tensor, kept: list[list[int]], rows: Tensor | None = None
) -> Iterator[Tensor]:
    """Yield one matrix (n, G, G) per entry of `kept`, or (n, len(rows), G) of some genes' rows.

    `counts` is (n, G, S, bins, bins); sections not kept are read as empty.
    """
    for sections in kept:
        if len(sections) == counts.shape[2]:
            only = counts
        else:
            only = torch.zeros_like(counts)
            only[:, :, sections] = counts[:, :, sections]
        yield attention.matrix(only.flatten(2), rows)
