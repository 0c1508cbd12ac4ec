"""Pairs of genes that attend to each other more, or less, in a region than elsewhere.

The difference of a pair's mean attention inside a region and in the other regions is held against
the differences after permuting the regions' labels over the units (the patches of one part of the
plane in one region), which keeps what is correlated inside a part together. p-values are two-sided
with the observed labelling counted in (Phipson and Smyth 2010). `p_corrected` is the chance that
any pair of any region differs as much: a pair's |z| is held against the largest |z| of every
labelling (Westfall and Young 1993), so it may be as small as p, however many pairs there are. Parts
side by side still resemble each other, so p-values are rather too small than too large.

Genes without molecules in any region have no pairs: the network's attention between such genes is
the same for all of them, and follows how dense the other molecules are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from teramind.attention.means import SlabSums
from teramind.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd

TOP = 50
"""Pairs in the table per region."""

COLUMNS = (
    *("region", "gene", "attends_to", "attention", "elsewhere", "log2_ratio", "z"),
    *("p", "p_corrected"),
)

_VALUES = 1 << 23
"""Values of the largest array that is computed with at once."""

Floats = NDArray[np.float64]


class Units(NamedTuple):
    """Units of all slabs, those of one part and region joined: labels, patches, where they lie.

    `apart` (G, G) are the pairs of two genes that both have molecules in the units.
    """

    regions: tuple[str, ...]
    labels: NDArray[np.int64]
    patches: Floats
    apart: NDArray[np.bool_]
    places: tuple[tuple[tuple[int, int], ...], ...]


def join_units(slabs: Sequence[SlabSums]) -> Units:
    """Join entries (slab, entry) of the same part and region."""
    found: dict[tuple[int, int, str], list[tuple[int, int]]] = {}
    patches: dict[tuple[int, int, str], int] = {}
    there = np.zeros(len(slabs[0].genes), bool)
    for s, slab in enumerate(slabs):
        for e, entry in enumerate(slab.entries):
            if "region" in entry and entry["patches"]:
                key = (*entry["part"], entry["region"])
                found.setdefault(key, []).append((s, e))
                patches[key] = patches.get(key, 0) + entry["patches"]
                there |= np.array(entry["molecules"]) > 0
    keys = sorted(found)
    regions = tuple(sorted({region for _, _, region in keys}))
    return Units(
        regions,
        np.array([regions.index(region) for _, _, region in keys], np.int64),
        np.array([patches[key] for key in keys], np.float64),
        there[:, None] & there & ~np.eye(len(there), dtype=bool),
        tuple(tuple(found[key]) for key in keys),
    )


def write_pairs(slabs: Sequence[SlabSums], path: Path, *, permutations: int) -> None:
    """Write the `TOP` pairs of each region, farthest from chance first, as TSV.

    A table without rows says that fewer than two regions hold molecules. Memory: a few arrays of
    regions x G x G, and `_VALUES` values.
    """
    units = join_units(slabs)
    table = pairs_table(slabs, units, permutations)
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, float_format="%.6g")


def pairs_table(slabs: Sequence[SlabSums], units: Units, permutations: int) -> pd.DataFrame:
    """The table of `write_pairs`."""
    import pandas as pd

    if len(units.regions) < 2:
        return pd.DataFrame(columns=list(COLUMNS))
    genes = slabs[0].genes
    tested = compare(slabs, units, permutations)
    corrected = exceeded(np.abs(tested.z), tested.farthest)
    rows = []
    for r, region in enumerate(units.regions):
        strength = np.where(units.apart, np.abs(tested.z[r]), -1).ravel()
        for flat in np.argsort(-strength, kind="stable")[: min(TOP, units.apart.sum())]:
            i, j = divmod(int(flat), len(genes))
            inside, outside = tested.inside[r, i, j], tested.elsewhere[r, i, j]
            ratio = np.log2(inside / outside)
            chances = (tested.p[r, i, j], corrected[r, i, j])
            numbers = (inside, outside, ratio, tested.z[r, i, j], *chances)
            rows.append((region, genes[i], genes[j], *numbers))
    return pd.DataFrame(rows, columns=list(COLUMNS))


class Comparison(NamedTuple):
    """Every pair in every region, each (region, G, G), and the largest |z| of every labelling."""

    inside: Floats
    elsewhere: Floats
    z: Floats
    p: Floats
    farthest: Floats


def compare(slabs: Sequence[SlabSums], units: Units, permutations: int) -> Comparison:
    """Compare every region with the others, some genes' rows at a time."""
    genes, regions = len(slabs[0].genes), len(units.regions)
    order = np.random.default_rng(0).permuted(
        np.tile(np.arange(len(units.labels)), (permutations, 1)), axis=1
    )
    shape = (regions, genes, genes)
    inside, elsewhere, z, p = (np.empty(shape) for _ in range(4))
    result = Comparison(inside, elsewhere, z, p, np.zeros(permutations))
    step = max(_VALUES // (len(units.labels) * genes), 1)
    for start in range(0, genes, step):
        rows = slice(start, min(start + step, genes))
        sums = _read(slabs, units, rows)
        *parts, farthest = _compare(sums, units, order, units.apart[rows].ravel())
        for found, part in zip(result[:4], parts, strict=True):
            found[:, rows] = part.reshape(regions, -1, genes)
        np.maximum(result.farthest, farthest, out=result.farthest)
    return result


def exceeded(values: Floats, drawn: Floats) -> Floats:
    """Chance of a drawn value as large as each of `values`, the observed one counted in."""
    smaller = np.searchsorted(np.sort(drawn), values * (1 - 1e-9))
    return (len(drawn) - smaller + 1) / (len(drawn) + 1)


def _read(slabs: Sequence[SlabSums], units: Units, rows: slice) -> Floats:
    """Sums (unit, pair) of some genes' rows."""
    parts = (sum(slabs[s].matrices[e, rows].astype(np.float64) for s, e in u) for u in units.places)
    return np.stack([np.ravel(part) for part in parts])


def _compare(
    sums: Floats, units: Units, order: NDArray[np.int64], apart: NDArray[np.bool_]
) -> tuple[Floats, ...]:
    """Inside, elsewhere, z and p (region, pair) of sums (unit, pair), and `farthest`.

    Only pairs in `apart` (pair,) count for the last.
    """
    inside, elsewhere = _means(sums, units, units.labels[None])
    difference = (inside - elsewhere)[0]
    total, squares = np.zeros_like(difference), np.zeros_like(difference)
    as_far = np.ones_like(difference)
    # Equal up to rounding counts as equal: labels may permute into the same partition.
    bar = np.abs(difference) * (1 - 1e-9)
    for drawn in _permuted(sums, units, order):
        total += drawn.sum(0)
        squares += (drawn * drawn).sum(0)
        as_far += (np.abs(drawn) >= bar).sum(0)
    mean = total / len(order)
    deviation = np.sqrt(np.maximum(squares / len(order) - mean * mean, 0))
    scale = np.divide(1, deviation, where=deviation > 1e-12, out=np.zeros_like(mean))
    farthest = np.concatenate(
        [
            np.abs((drawn - mean) * scale)[..., apart].max((1, 2), initial=0)
            for drawn in _permuted(sums, units, order)
        ]
    )
    return inside[0], elsewhere[0], (difference - mean) * scale, as_far / (len(order) + 1), farthest


def _permuted(sums: Floats, units: Units, order: NDArray[np.int64]) -> Iterator[Floats]:
    """Differences (labelling, region, pair) under permuted labels, some labellings at a time."""
    step = max(_VALUES // (len(units.regions) * sums.shape[1]), 1)
    for start in range(0, len(order), step):
        yield np.subtract(*_means(sums, units, units.labels[order[start : start + step]]))


def _means(sums: Floats, units: Units, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Mean attention (labelling, region, pair) inside a region and in the others."""
    member = (labels[:, None] == np.arange(len(units.regions))[:, None]).astype(np.float64)
    patches = member @ units.patches
    flat = member.reshape(-1, member.shape[-1]) @ sums
    inside = flat.reshape(*patches.shape, -1)
    elsewhere = sums.sum(0) - inside
    rest = units.patches.sum() - patches
    return inside / patches[..., None], elsewhere / rest[..., None]
