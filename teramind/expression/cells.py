"""Cells x genes counts in AnnData files (.h5ad), each cell's molecules spread over a disc."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from anndata.io import sparse_dataset
from numpy.typing import NDArray
from scipy import sparse

from teramind.config.values import LengthUnit
from teramind.errors import UserError, foreign, some
from teramind.expression.h5ad import open_h5ad, read_whole, require_matrix
from teramind.expression.sections import match_sections, section_label
from teramind.expression.source import Molecules, spanned, to_pixels
from teramind.geometry import Rect

_MOST_BY_COLUMN = 100_000_000
"""Counts stored by column that are turned in memory at most: 1.2 GB, twice over."""

_CHUNK_VALUES = 1 << 20
_MOST_MOLECULES = 1 << 26
_PLASTIC = 1.324717957244746
"""The real root of t^3 = t + 1: its powers give the evenest known two-dimensional sequence."""


@dataclass(frozen=True)
class CellSettings:
    """How to read a cells x genes file."""

    gene: str | None = None
    """Column of var that holds gene names; None: its index."""
    spatial_key: str = "spatial"
    """Entry of obsm that holds cell centres, x first."""
    section: str | None = None
    """Column of obs that tells the section; None: all cells are of section 0."""
    section_values: Sequence[object] | None = None
    """Values of that column in z order; None: it holds section numbers from 0."""
    layer: str | None = None
    """Layer with the counts; None: X."""
    radius_um: float = 5.0
    """Radius of the disc over which a cell's molecules are spread."""
    units: LengthUnit = "um"
    """Units of the cell centres."""
    origin: tuple[float, float] = (0.0, 0.0)
    """Coordinates (y, x) of the top left corner of pixel (0, 0), in these units."""


class CellTable:
    """A cells x genes file whose counts, centres and sections have been looked through once."""

    def __init__(
        self, path: Path | str, *, settings: CellSettings, pixel_size_um: float | None
    ) -> None:
        """Look through the file.

        Raises UserError for a missing or foreign file, missing entries, centres that are no finite
        numbers, and counts that are negative or not whole.
        """
        self.path, self.settings = Path(path), settings
        if pixel_size_um is None or not pixel_size_um > 0:
            raise UserError(f"{path}: radius_um needs pixel_size_um, a number above 0")
        self.pixel_size = 1.0 if settings.units == "pixel" else pixel_size_um
        self._radius = settings.radius_um / (pixel_size_um / self.pixel_size)
        with open_h5ad(self.path) as file:
            self._centres = self._read_centres(file)
            self._labels = self._read_labels(file)
            self._names = self._read_names(file)
            self._require_counts_of_all(file)
            sums = np.zeros(len(self._names), np.int64)
            for _, counts in self._chunks(file):
                np.add.at(sums, counts.col, counts.data.astype(np.int64))
        self.molecules: Counter[str] = Counter()
        for name, number in zip(self._names, sums.tolist(), strict=True):
            self.molecules[name] += number
        self.molecules_per_label = Counter(self._labels)
        self._section = np.zeros(len(self._labels), np.int64)

    @property
    def extent(self) -> Rect:
        """The smallest rectangle of pixels that holds all discs."""
        low = self._centres.min(axis=0) - self._radius
        high = self._centres.max(axis=0) + self._radius
        return spanned(
            (low[0], low[1]),
            (high[0], high[1]),
            origin=self.settings.origin,
            pixel_size=self.pixel_size,
        )

    def match(self, sections: int) -> None:
        """Map the section column to 0..sections - 1; UserError for values that do not fit."""
        if self.settings.section is not None:
            places = match_sections(
                self.molecules_per_label,
                sections=sections,
                section_values=self.settings.section_values,
                where=f"{self.path}, obs[{self.settings.section!r}]",
            )
            self._section = np.array([places[label] for label in self._labels], np.int64)

    def read(self, index: Mapping[str, int]) -> Iterator[Molecules]:
        """Yield the molecules of the genes in `index`, after `match`.

        Molecule k of a cell lies at the k-th point of one fixed sequence, so that every run of
        molecules, hence every gene, covers the disc evenly; genes come in the file's order.
        """
        gene_of_column = np.array([index.get(name, -1) for name in self._names], np.int64)
        with open_h5ad(self.path) as file:
            for start, counts in self._chunks(file):
                gene = gene_of_column[counts.col]
                kept = gene >= 0
                times = counts.data[kept].astype(np.int64)
                cell = np.repeat(start + counts.row[kept].astype(np.int64), times)
                y, x = self._spread(cell)
                number = np.ones(len(cell), np.int64)
                yield Molecules(self._section[cell], y, x, np.repeat(gene[kept], times), number)

    def _spread(self, cell: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return a pixel (y, x) for each molecule of cells in ascending order."""
        place = np.arange(len(cell)) - np.searchsorted(cell, cell)
        radius = self._radius * np.sqrt((0.5 + place / _PLASTIC) % 1.0)
        angle = 2 * np.pi * (place / _PLASTIC**2)
        centre = self._centres[cell]
        (origin_y, origin_x), size = self.settings.origin, self.pixel_size
        y, x = centre[:, 0] + radius * np.sin(angle), centre[:, 1] + radius * np.cos(angle)
        return (
            to_pixels(y, origin=origin_y, pixel_size=size),
            to_pixels(x, origin=origin_x, pixel_size=size),
        )

    def _read_centres(self, file: h5py.File) -> NDArray[np.float64]:
        """Return the cell centres (cell, [y, x])."""
        key = self.settings.spatial_key
        self._require_key(file["obsm"], key, "obsm")
        with foreign(f"{self.path}, obsm[{key!r}]: centres must be numbers"):
            centres = np.asarray(read_whole(file["obsm"][key], self.path), np.float64)
        if centres.ndim != 2 or centres.shape[1] < 2 or len(centres) == 0:
            raise UserError(
                f"{self.path}, obsm[{key!r}]: shape {centres.shape}: cells x 2 expected, x first"
            )
        bad = ~np.isfinite(centres[:, :2]).all(axis=1)
        if bad.any():
            raise UserError(
                f"{self.path}, obsm[{key!r}]: {bad.sum()} of {len(centres)} cells lack a"
                f" finite centre, the first is cell {np.argmax(bad)}: remove them"
            )
        return centres[:, 1::-1]

    def _read_labels(self, file: h5py.File) -> list[str]:
        """Return each cell's section value."""
        key = self.settings.section
        if key is None:
            return [""] * len(self._centres)
        self._require_key(file["obs"], key, "obs")
        values = np.asarray(read_whole(file["obs"][key], self.path))
        if values.shape != (len(self._centres),):
            raise UserError(
                f"{self.path}, obs[{key!r}]: shape {values.shape} for {len(self._centres)} cells:"
                " one value per cell expected"
            )
        return [section_label(value) for value in values]

    def _read_names(self, file: h5py.File) -> list[str]:
        """Return the gene names."""
        key, where = self.settings.gene, f"{self.path}: var"
        if key is not None:
            self._require_key(file["var"], key, "var")
            where = f"{self.path}, var[{key!r}]"
        with foreign(f"{where} holds no gene names"):
            names = read_whole(file["var"][key or file["var"].attrs["_index"]], self.path)
            return [str(name).strip() for name in np.asarray(names)]

    def _counts_name(self, file: h5py.File) -> str:
        """Return the path of the matrix with the counts."""
        if self.settings.layer is None:
            return "X"
        self._require_key(file.get("layers", {}), self.settings.layer, "layers")
        return f"layers/{self.settings.layer}"

    def _require_counts_of_all(self, file: h5py.File) -> None:
        name = self._counts_name(file)
        where = f"{self.path}, {name}"
        require_matrix(file[name], where, cells=len(self._centres), genes=len(self._names))

    def _chunks(self, file: h5py.File) -> Iterator[tuple[int, Any]]:
        """Yield (first cell, counts as a COO matrix in row order) of consecutive cells."""
        name = self._counts_name(file)
        node = file[name]
        matrix = self._by_row(node, name)
        cells, genes = matrix.shape
        step = max(1, _CHUNK_VALUES // max(genes, 1))
        for start in range(0, cells, step):
            with foreign(f"{self.path}, {name}: cannot be read"):
                chunk = sparse.csr_array(matrix[start : start + step], dtype=np.float64)
                chunk.sum_duplicates()  # which would wrap around in the narrow types of some files
            self._require_counts(chunk, start, name, file)
            yield start, chunk.tocoo()

    def _by_row(self, node: Any, name: str) -> Any:
        """The counts as something that gives consecutive cells without reading all others."""
        if not isinstance(node, h5py.Group):
            return node
        if node.attrs["encoding-type"] == "csr_matrix":
            return sparse_dataset(node)
        stored = node["data"].shape[0]
        if stored > _MOST_BY_COLUMN:
            raise UserError(
                f"{self.path}, {name}: {stored:,} counts stored gene by gene (CSC), too many to "
                "turn in memory; store them cell by cell: adata.X = adata.X.tocsr()"
            )
        return sparse.csr_array(read_whole(node, self.path))

    def _require_counts(self, chunk: Any, start: int, name: str, file: h5py.File) -> None:
        bad = ~((chunk.data >= 0) & (chunk.data == np.floor(chunk.data)))
        if bad.any():
            first = int(np.argmax(bad))
            cell = start + int(np.searchsorted(chunk.indptr, first, side="right")) - 1
            fault = f"cell {cell}: holds {chunk.data[first]:g}: counts must be whole numbers from 0"
        elif (total := chunk.sum(dtype=np.float64)) > _MOST_MOLECULES:
            cells = f"cells {start} to {start + chunk.shape[0] - 1}"
            fault = f"{cells}: hold {total:g} molecules: too many for counts"
        else:
            return
        layers = some(list(file.get("layers", ()))) or "none"
        raise UserError(
            f"{self.path}, {name}, {fault}; name the layer with raw counts (layers: {layers})"
        )

    def _require_key(self, group: Mapping[str, Any], key: str, where: str) -> None:
        if key not in group:
            present = some([name for name in group if name != "_index"]) or "none"
            raise UserError(f"{self.path}: no {where}[{key!r}]; present: {present}")
