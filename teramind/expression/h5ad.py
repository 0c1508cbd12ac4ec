"""AnnData files (.h5ad) that may lie: what is checked before anything is read from one.

HDF5 can point into other files, claim sizes that it does not hold, and give sparse matrices whose
indices leave the matrix, which compiled code would follow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from anndata.io import read_elem

from teramind.errors import UserError, foreign

_PARTS = ("X", "obs", "var", "obsm")
_GROUPS = ("obs", "var", "obsm", "layers")
_CHUNK = 1 << 20
_DENSEST = 1100
"""Values' bytes per byte of a file: gzip reaches 1032 on zeros."""


def open_h5ad(path: Path) -> h5py.File:
    """Open a file whose every value lies in the file itself.

    Raises:
        UserError: for a missing, foreign or outdated file, and one that points outside itself.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file: give an AnnData file (.h5ad)")
    with foreign(f"{path}: not an AnnData file (.h5ad)"):
        file = h5py.File(path, "r")
        try:
            absent = [part for part in _PARTS if part not in file]
            if absent:
                raise UserError(
                    f"{path}: not an AnnData file: {', '.join(absent)} missing;"
                    f" {', '.join(_PARTS)} expected in it"
                )
            _require_own_values(file, path)
            if any(isinstance(file.get(part), h5py.Dataset) for part in _GROUPS):
                raise UserError(
                    f"{path}: written by an anndata before 0.7: read it with"
                    " anndata.read_h5ad and write it again"
                )
        except BaseException:
            file.close()
            raise
    return file


def read_whole(node: Any, path: Path) -> Any:
    """Return an element as anndata reads it, once it is clear that the file can hold it.

    Raises:
        UserError: for one that claims more values than bytes of the file can stand for.
    """
    most = _DENSEST * path.stat().st_size

    def held(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset) and found.nbytes > most:
            raise UserError(
                f"{path}: {found.name} claims {found.shape} values, more than a file of its size"
                " can hold: truncated, or made to deceive"
            )

    held("", node)
    if isinstance(node, h5py.Group):
        node.visititems(held)
    with foreign(f"{path}: {node.name} cannot be read"):
        return read_elem(node)


def require_matrix(node: Any, where: str, *, cells: int, genes: int) -> None:
    """Raise UserError unless a dense or sparse matrix is sound and of the right shape.

    Memory: the row (or column) pointers of a sparse matrix, and a chunk of its indices.
    """
    with foreign(f"{where}: not a matrix of AnnData"):
        sparse = isinstance(node, h5py.Group)
        shape = tuple(int(edge) for edge in (node.attrs["shape"] if sparse else node.shape))
        dtype = (node["data"] if sparse else node).dtype
        if shape != (cells, genes):
            raise UserError(f"{where}: shape {shape}: {(cells, genes)} expected, cells x genes")
        if dtype.kind not in "iuf":
            raise UserError(f"{where}: holds {dtype}: counts must be numbers")
        if sparse:
            by_row = node.attrs["encoding-type"] == "csr_matrix"
            _require_sound(node, where, *((cells, genes) if by_row else (genes, cells)))


def _require_own_values(file: h5py.File, path: Path) -> None:
    """Refuse links to elsewhere and values kept in other files."""

    def link(name: str, found: Any) -> str | None:
        return None if isinstance(found, h5py.HardLink) else name

    def item(name: str, found: Any) -> str | None:
        elsewhere = isinstance(found, h5py.Dataset) and (found.external or found.is_virtual)
        return name if elsewhere else None

    if name := file.visititems_links(link):
        raise UserError(f"{path}: {name} is a link to elsewhere: give a file without links")
    if name := file.visititems(item):
        raise UserError(f"{path}: the values of {name} are in another file: give one that has them")


def _require_sound(node: h5py.Group, where: str, major: int, minor: int) -> None:
    """Refuse pointers and indices that leave a sparse matrix."""
    data, indices, pointers = (node[name] for name in ("data", "indices", "indptr"))
    stored = data.shape[0]
    sound = pointers.shape == (major + 1,) and indices.shape == data.shape == (stored,)
    if sound:
        starts = pointers[:]
        sound = starts[0] == 0 and starts[-1] == stored and bool((np.diff(starts) >= 0).all())
    for start in range(0, stored if sound else 0, _CHUNK):
        part = indices[start : start + _CHUNK]
        sound = sound and part.min() >= 0 and part.max() < minor
    if not sound:
        raise UserError(f"{where}: its indices leave the matrix: write the file again")
