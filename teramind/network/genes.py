"""The gene branch: counts of one patch -> gene-gene attention -> features for every level."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teramind.network.blocks import SectionConv, upsample
from teramind.network.norm import ChannelNorm
from teramind.network.spec import SECTION_KERNELS, NetworkSpec


class GeneAttention(nn.Module):
    """Genes are the tokens; a token is that gene's counts in the patch, flattened (z, y, x).

    Queries and keys share one projection and one norm, so the logits are symmetric. There is no
    residual path. Sections are reduced to image sections by `reduce`.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        width, depth = spec.gene_token, SECTION_KERNELS[spec.sections]
        self.query = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.query_norm = ChannelNorm(width)
        self.project = nn.Linear(width, width)
        self.norm_mlp = ChannelNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)
        self.reduce = nn.Conv3d(spec.genes, spec.genes, (depth, 3, 3), padding=(0, 1, 1))

    def matrix(self, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        """Attention of genes to genes: (n, G, D) -> (n, G, G), rows sum to 1.

        With `rows`, indices of some genes, only their rows: (n, len(rows), G).
        """
        q = self.query_norm(self.query(tokens))
        asking = q if rows is None else q[:, rows]
        return torch.softmax(asking @ q.transpose(1, 2) / tokens.shape[-1], dim=-1)

    def forward(self, counts: Tensor) -> Tensor:
        """(n, G, S, bins, bins) -> (n, bins, bins, Z, G)."""
        tokens = counts.flatten(2)
        mixed = self.project(self.matrix(tokens) @ self.value(tokens))
        hidden = F.gelu(self.mlp_in(self.norm_mlp(mixed)), approximate="tanh")
        reduced = self.reduce(self.mlp_out(hidden).view(counts.shape))  # (n, G, Z, bins, bins)
        return reduced.permute(0, 3, 4, 2, 1).contiguous()


class GeneBranch(nn.Module):
    """Gene features of levels 3, 2, 1, 0 from the counts of a patch. Independent of the step."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.attention = GeneAttention(spec)
        fine_to_coarse = spec.gene_widths
        self.widen = nn.ModuleList(
            SectionConv(fine_to_coarse[level + 1], fine_to_coarse[level], depth=1, edge=3)
            for level in (2, 1, 0)
        )

    def forward(self, counts: Tensor) -> list[Tensor]:
        """(n, bins, bins, S, G) counts -> features of levels 0..3, each (n, P_l, P_l, Z, c_l)."""
        features = [upsample(self.attention(counts.permute(0, 4, 3, 1, 2)))]
        for layer in self.widen:
            features.append(upsample(layer(F.silu(features[-1]))))
        return features[::-1]
