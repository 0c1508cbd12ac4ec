"""One slab's attention: pathway maps into their volumes, sums of matrices into a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teramind.attention.maps import PathwayMaps
from teramind.attention.matrices import BATCH, kept_sections, matrices
from teramind.attention.sums import MatrixSums, PatchUnits
from teramind.attention.volumes import pathways_of, regions_of, volume_path
from teramind.config import Config
from teramind.engine.slab import log_progress, open_inputs
from teramind.expression.raster import Raster
from teramind.files import atomic_path
from teramind.geometry import BIN, Rect, Slab
from teramind.network import NetworkSpec
from teramind.network.genes import GeneAttention
from teramind.volume import write_slab


@torch.inference_mode()
def attention_slab(
    config: Config,
    slab: Slab,
    *,
    checkpoint: Path,
    raster: Path,
    folder: Path,
    sums: Path,
) -> dict[str, Any]:
    """Compute a slab's attention, row of patches by row.

    Memory: the weights; 4 (channels x Z x bins) bytes of the slab's pathway maps; and 4 to 8
    matrices of G x G in float32 for `BATCH` patches. Sums stay in their file.

    Args:
        config: with a section `attention`.
        slab: which.
        checkpoint: the network.
        raster: the expression.
        folder: holds the pathways' volumes, which exist.
        sums: .npy file to write, see `sums`.

    Returns:
        The receipt: slab, genes, what each entry of `sums` is, shards of each pathway.
    """
    assert config.attention is not None
    network, expression = open_inputs(config, checkpoint=checkpoint, raster=raster)
    spec, attention, layout = network.spec, network.genes.attention, config.layout()
    del network  # all other weights
    rect = layout.core(slab, layout.phases - 1)
    sections = [*layout.windows.kept(slab.window)]
    genes = expression.panel[: spec.genes]
    pathways = pathways_of(config, config.attention, expression.panel, spec)
    asking = torch.tensor(sorted({i for _, places in pathways for i in places}))
    rows, cols = rect.height // layout.patch + 1, rect.width // layout.patch + 1
    maps = [PathwayMaps(spec, places, rows, cols, asking) for _, places in pathways]
    regions = regions_of(config, config.attention)
    with atomic_path(sums) as temporary:
        tally = MatrixSums(temporary, PatchUnits(layout, rect, sections, regions), spec.genes)
        progress = log_progress(rows * cols)
        window = layout.windows.expression(slab.window)
        for row, counts in enumerate(patch_rows(expression, spec, window, rect)):
            _add_row(attention, row, counts, asking, maps, tally)
            progress(cols)
        entries = tally.finish(sections, regions)
    shards = {
        pathway.name: write_slab(
            volume_path(folder, pathway.name),
            voxels=np.ascontiguousarray(of_pathway.inner()[:, : len(sections)]),
            z=layout.windows.z(sections[0]),
            y=(rect.y - layout.region.y) // BIN,
            x=(rect.x - layout.region.x) // BIN,
        )
        for (pathway, _), of_pathway in zip(pathways, maps, strict=True)
    }
    return {"slab": str(slab), "genes": list(genes), "entries": entries, "shards": shards}


def patch_rows(
    expression: Raster, spec: NetworkSpec, sections: range, rect: Rect
) -> Iterator[Tensor]:
    """Counts (n, G, S, bins, bins) of the aligned patches over `rect`, row by row.

    Aligned patches stand half a patch up and left, so there is one row and one column more.
    """
    p, half = spec.patch, spec.half
    for y in range(rect.y, rect.bottom + 1, p):
        band = Rect(y - half, rect.x - half, p, rect.width + p)
        counts = expression.counts(sections=sections, rect=band)[..., : spec.genes]
        plane = torch.from_numpy(counts.astype(np.float32)).unflatten(1, (-1, spec.bins))
        yield plane.permute(1, 4, 3, 0, 2)


def _add_row(
    attention: GeneAttention,
    row: int,
    counts: Tensor,
    asking: Tensor,
    maps: list[PathwayMaps],
    tally: MatrixSums,
) -> None:
    """Add one row of patches to the maps and the sums; patches without molecules are left out."""
    spec = maps[0].spec
    first = spec.first_image
    *pairs, _ = kept_sections(spec)
    _, height, width = tally.units.place.shape
    for cols in torch.nonzero(counts.flatten(1).any(1)).flatten().split(BATCH):
        some = counts[cols]
        whole = attention.matrix(some.flatten(2))
        chosen = [*matrices(attention, some, pairs, asking), whole[:, asking]]
        for of_pathway in maps:
            of_pathway.add(row, cols, some, chosen)
        if row < height:
            own = cols < width
            drawn = some[own, :, first : first + spec.images]
            molecules = drawn.transpose(1, 2).flatten(3).sum(3)
            tally.add(row, cols[own].numpy(), molecules, whole[own])
