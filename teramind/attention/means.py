"""Mean attention of genes to genes, per section and per region, from the sums of all slabs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from teramind.errors import UserError
from teramind.files import atomic_path, read_json

DEFINITION = (
    "Row: the gene that asks, column: the gene it attends to; the mean over patches of the "
    "attention that the network has with all sections of a window. Every row sums to 1. In one "
    "patch A[i,j] / A[j,i] depends on i and j through one factor each (the matrix before the "
    "softmax is symmetric); means over patches are not symmetric. A patch counts in a section "
    "where that section has molecules of the panel in it; the sections that one window draws "
    "share their matrices and differ in the patches that count."
)


class SlabSums(NamedTuple):
    """The sums of one slab: the file of its matrices, and what they are of."""

    path: Path
    entries: list[dict[str, Any]]
    genes: tuple[str, ...]

    @property
    def matrices(self) -> NDArray[np.float32]:
        """Matrices (entry, G, G), mapped for as long as they are held.

        A whole brain has more slabs than a process may have open files.
        """
        mapped: NDArray[np.float32] = np.load(self.path, mmap_mode="r")
        return mapped


def open_sums(receipts: Sequence[Path], sums: Sequence[Path]) -> list[SlabSums]:
    """Find the sums of all slabs; nothing is read yet.

    Raises:
        UserError: when an older program wrote a receipt.
    """
    found = []
    for receipt, path in zip(receipts, sums, strict=True):
        record = read_json(receipt)
        if not all("molecules" in entry for entry in record["entries"]):
            raise UserError(
                f"{receipt}: of an older program, without molecules of each gene; remove the "
                "receipts of attention and run again"
            )
        found.append(SlabSums(path, record["entries"], tuple(record["genes"])))
    return found


def write_means(slabs: Sequence[SlabSums], path: Path, *, regions: bool) -> None:
    """Write the means as AnnData, genes x genes.

    X is the mean over all sections; the layers `section_000`... and `region_NAME`... are those of
    a section or region. `uns["patches"]` says over how many patches, a patch counted once per
    section, and `obs["molecules"]`, for a layer `obs["molecules_LAYER"]`, how many molecules of
    each gene these hold. Memory: one matrix in float64 per layer.

    Args:
        slabs: of the whole region.
        path: h5ad to write.
        regions: whether regions were given.

    Raises:
        UserError: when no patch has molecules, or regions were given and none holds such a patch.
    """
    import anndata
    import pandas as pd

    totals: dict[str, tuple[Any, int, Any]] = {}
    for name, matrix, entry in _entries(slabs):
        total, patches, molecules = totals.get(name, (0.0, 0, 0))
        totals[name] = (
            total + matrix.astype(np.float64),
            patches + entry["patches"],
            molecules + np.array(entry["molecules"]),
        )
    found = {name: totals[name] for name in sorted(totals) if totals[name][1]}
    if "all" not in found:
        raise UserError("attention: no patch of the region holds molecules of the panel")
    if regions and not any(name.startswith("region_") for name in found):
        raise UserError("attention.regions: no region holds a patch with molecules")
    genes = pd.Index(slabs[0].genes, name="gene")
    molecules = {molecules_column(name): number for name, (_, _, number) in found.items()}
    means = {name: np.asarray(total / n, np.float32) for name, (total, n, _) in found.items()}
    data = anndata.AnnData(
        means.pop("all"),
        obs=pd.DataFrame(molecules, index=genes),
        var=pd.DataFrame(index=genes),
        layers=means,
        uns={"patches": {name: n for name, (_, n, _) in found.items()}, "definition": DEFINITION},
    )
    with atomic_path(path) as temporary:
        data.write_h5ad(temporary, compression="gzip")


def molecules_column(layer: str) -> str:
    """The column of `obs` with the molecules behind a layer, or behind X, which is `all`."""
    return "molecules" if layer == "all" else f"molecules_{layer}"


def _entries(slabs: Sequence[SlabSums]) -> Iterator[tuple[str, NDArray[np.float32], Any]]:
    """Yield (layer, sum, entry) of every entry; sections belong to `all`, too."""
    for slab in slabs:
        for matrix, entry in zip(slab.matrices, slab.entries, strict=True):
            if "section" in entry:
                yield "all", matrix, entry
                yield f"section_{entry['section']:03d}", matrix, entry
            else:
                yield f"region_{entry['region']}", matrix, entry
