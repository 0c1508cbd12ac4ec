"""How alike the attention of two brains, or of two networks, is: one number with an interval."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from teramind.attention.means import molecules_column
from teramind.errors import UserError, foreign, some

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 1000
FEWEST_GENES = 5

Floats = NDArray[np.float64]


class Agreement(NamedTuple):
    """Pearson's r with its 95 % interval, the genes behind it, and those that one brain lacks."""

    r: float
    low: float
    high: float
    genes: int
    lacking: int


def agreement(first: Path, second: Path, *, layer: str | None = None) -> Agreement:
    """Correlate two genes x genes means beyond what single genes explain.

    Every gene has a level at which others attend to it, which follows its abundance and would by
    itself make any two brains agree. So log attention is taken less its row's and column's means
    first; what is left is which gene attends to which. Pairs that share a gene are not independent,
    so the interval draws genes, not pairs, with replacement. Genes without molecules are left out:
    the network takes them all alike, so brains that lack the same ones would agree by that.

    Args:
        first: h5ad of a run.
        second: h5ad of another; the genes with molecules in both are compared.
        layer: a section or region that both have; by default the mean over all.

    Raises:
        UserError: when a file is no such table, they share too little, or pairs do not differ.
    """
    (one, there), (other, also) = (_read(path, layer) for path in (first, second))
    named = one.index.intersection(other.index)
    genes = named[there[named] & also[named]]
    if len(genes) < FEWEST_GENES:
        raise UserError(
            f"{first} and {second}: {len(genes)} genes with molecules in both; at least "
            f"{FEWEST_GENES} needed"
        )
    a, b = (table.loc[genes, genes].to_numpy() for table in (one, other))
    r = _alike(a, b, np.arange(len(genes)))
    if not np.isfinite(r):
        raise UserError(
            f"{first} and {second}: nothing to correlate; in one of them pairs of genes do not "
            "differ beyond what single genes explain, or values are no numbers"
        )
    random = np.random.default_rng(0)
    drawn = [_alike(a, b, random.integers(0, len(genes), len(genes))) for _ in range(DRAWS)]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return Agreement(r, float(low), float(high), len(genes), len(named) - len(genes))


def _alike(a: Floats, b: Floats, chosen: NDArray[np.int64]) -> float:
    """Correlation over pairs of different genes among `chosen`, which may repeat."""
    apart = chosen[:, None] != chosen
    if not apart.any():
        return float("nan")
    box = np.ix_(chosen, chosen)
    x, y = (_beyond_single_genes(values[box], apart)[apart] for values in (a, b))
    if min(x.std(), y.std()) <= 1e-6:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def _beyond_single_genes(values: Floats, apart: NDArray[np.bool_]) -> Floats:
    """Less the means of rows and of columns over pairs of different genes, until both are 0."""
    weights = apart.astype(np.float64)
    for _ in range(10):
        for axis in (0, 1):
            number = np.maximum(weights.sum(axis, keepdims=True), 1)
            values = values - (values * weights).sum(axis, keepdims=True) / number
    return values


def _read(path: Path, layer: str | None) -> tuple[pd.DataFrame, pd.Series[bool]]:
    """Log attention of a file, genes x genes, and which of them have molecules."""
    import anndata
    import pandas as pd

    with foreign(f"{path}: not a table of attention (.h5ad)"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice: said below
        data = anndata.read_h5ad(path)
        names = list(data.obs_names)
        if names != list(data.var_names):
            raise UserError(f"{path}: not genes x genes: rows and columns differ")
        if layer is not None and layer not in data.layers:
            there = ", ".join(data.layers) or "none"
            raise UserError(f"{path}: no layer {layer!r}; it has {there}")
        column = molecules_column(layer or "all")
        if column not in data.obs:
            raise UserError(
                f"{path}: does not say which genes have molecules (no obs {column!r}), as those of "
                "an older program; make it again"
            )
        present = data.obs[column] > 0
        found = data.X if layer is None else data.layers[layer]
        if not isinstance(found, np.ndarray):
            raise UserError(f"{path}: {layer or 'X'} is missing or sparse; must be dense")
        matrix = found.astype(np.float64)
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{path}: genes that are there twice: {some(sorted(twice))}")
    log = np.log(np.maximum(matrix, np.finfo(np.float32).tiny))
    return pd.DataFrame(log, names, names), present
