"""Names of the published checkpoints' folders, and of their tensors in both directions.

The release keeps its U-Net in flat lists (`input_blocks.7.0`); ours has named levels. The pairs
below are built from the architecture, so they hold for every size.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from teramind.network.spec import NetworkSpec

_FOLDER = re.compile(r"(\w+?)_(\d+)_(\d+)_(\w+)_(\d+)_ours")
_STAINS = {"all": ("DAPI", "PolyT")}


class PublishedFolder(NamedTuple):
    """What the name of the folder of a published `last.ckpt` says of the network."""

    mouse: str
    patch: int
    genes: int
    stains: tuple[str, ...]
    sections: int


def published_folder(name: str) -> PublishedFolder | None:
    """Read `{mouse}_{P}_{G}_{stain}_{S}_ours`; None for any other name."""
    found = _FOLDER.fullmatch(name)
    if not found:
        return None
    mouse, patch, genes, stain, sections = found.groups()
    stains = _STAINS.get(stain, (stain,))
    return PublishedFolder(mouse, int(patch), int(genes), stains, int(sections))


_RESIDUAL = {
    "norm_in": "in_layers.0",
    "conv_in": "in_layers.2",
    "time": "emb_layers.1",
    "norm_out": "out_layers.0",
    "conv_out": "out_layers.3",
    "skip": "skip_connection",
}
_ATTENTION = {
    "modulation": "adaLN_modulation.1",
    "norm_attention": "norm1",
    "query": "attn.q",
    "key": "attn.k",
    "value": "attn.v",
    "query_norm": "attn.q_norm",
    "key_norm": "attn.k_norm",
    "project": "attn.proj",
    "norm_mlp": "norm2",
    "mlp_in": "mlp.fc1",
    "mlp_out": "mlp.fc2",
}
_PLAIN = {
    "time_in": "time_embed.time_embed.0",
    "time_out": "time_embed.time_embed.2",
    "stem": "input_blocks.0.0",
    "head_norm": "out.0",
    "head": "out.2",
    "genes.attention.query": "rna_blocks.0.0.attn.q",
    "genes.attention.value": "rna_blocks.0.0.attn.v",
    "genes.attention.query_norm": "rna_blocks.0.0.attn.q_norm",
    "genes.attention.project": "rna_blocks.0.0.attn.proj",
    "genes.attention.norm_mlp": "rna_blocks.0.0.norm2",
    "genes.attention.mlp_in": "rna_blocks.0.0.mlp.fc1",
    "genes.attention.mlp_out": "rna_blocks.0.0.mlp.fc2",
    "genes.attention.reduce": "rna_blocks.0.0.down_z",
    "genes.widen.0": "rna_blocks.1.1",
    "genes.widen.1": "rna_blocks.2.1",
    "genes.widen.2": "rna_blocks.3.1",
}


def _residual_places(spec: NetworkSpec) -> dict[str, str]:
    """Our residual block -> its published place."""
    places = {"middle_in.block": "middle_block.0", "middle_out": "middle_block.2"}
    for level in range(4):
        for i in range(2):
            places[f"encoder.{level}.{i}.block"] = f"input_blocks.{3 * level + i + 1}.0"
        for i in range(3):
            places[f"decoder.{level}.{i}.block"] = f"output_blocks.{3 * (3 - level) + i}.0"
        if level < 3:
            places[f"down.{level}"] = f"input_blocks.{3 * level + 3}.0"
            beside = 2 if spec.attends(level + 1) else 1
            places[f"up.{level}"] = f"output_blocks.{3 * (2 - level) + 2}.{beside}"
    return places


def _attention_places(spec: NetworkSpec) -> dict[str, str]:
    """Our image attention -> its published place."""
    places = {"middle_in.attention": "middle_block.1"}
    for level in filter(spec.attends, range(4)):
        for i in range(2):
            places[f"encoder.{level}.{i}.attention"] = f"input_blocks.{3 * level + i + 1}.1"
        for i in range(3):
            places[f"decoder.{level}.{i}.attention"] = f"output_blocks.{3 * (3 - level) + i}.1"
    return places


def published_modules(spec: NetworkSpec) -> dict[str, str]:
    """Our module name -> the published one, for every module that holds weights."""
    names = dict(_PLAIN)
    for places, parts in (
        (_residual_places(spec), _RESIDUAL),
        (_attention_places(spec), _ATTENTION),
    ):
        for ours, theirs in places.items():
            names |= {f"{ours}.{a}": f"{theirs}.{b}" for a, b in parts.items()}
    return names
