"""Tables of attention: permutations find what differs and nothing else; agreement is honest."""

import json
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from teramind.__main__ import main
from teramind.attention.agreement import agreement
from teramind.attention.matrices import gene_attention
from teramind.attention.means import SlabSums, open_sums, write_means
from teramind.attention.pairs import COLUMNS, compare, join_units, pairs_table
from teramind.attention.regions import LabelImage
from teramind.attention.sums import MatrixSums, PatchUnits
from teramind.errors import UserError
from teramind.geometry import BIN, Layout, Rect, Windows
from teramind.network import Network, NetworkSpec

GENES = tuple(f"g{i}" for i in range(6))


def soft(logits):
    e = np.exp(logits)
    return e / e.sum(-1, keepdims=True)


def slabs_of(folder, shift, *, parts=40, seed=0):
    """Two slabs of units in two regions; in `b` gene 1 attends to gene 2 with `shift` more."""
    rng = np.random.default_rng(seed)
    matrices, entries = [], []
    for part in range(parts):
        region = "ab"[part % 2]
        logits = rng.normal(0, 0.1, (6, 6))
        logits[1, 2] += shift * (region == "b")
        patches = int(rng.integers(1, 5))
        matrices.append(soft(logits) * patches)
        where = {"part": [part // 8, part % 8], "region": region}
        entries.append(where | {"patches": patches, "molecules": [patches] * 6})
    half = parts // 2
    matrices = np.array(matrices, np.float32)
    slabs = []
    for number, cut in enumerate((slice(half), slice(half, None))):
        path = folder / f"{seed}_{number}.npy"
        np.save(path, matrices[cut])
        slabs.append(SlabSums(path, entries[cut], GENES))
    return slabs


def test_the_pair_that_differs_is_found_and_the_others_are_not(tmp_path):
    slabs = slabs_of(tmp_path, 1.0)
    table = pairs_table(slabs, join_units(slabs), 499)
    first = table[table.region == "b"].iloc[0]
    assert (first.gene, first.attends_to) == ("g1", "g2")
    assert first.p == 1 / 500
    assert first.z > 4
    assert first.log2_ratio > 0.5
    assert first.p_corrected == 1 / 500
    significant = table[table.p_corrected < 0.05]
    assert set(significant.gene) == {"g1"}


def test_without_a_difference_p_values_are_those_of_chance(tmp_path):
    p = np.concatenate(
        [
            compare(slabs, join_units(slabs), 99).p[0][~np.eye(6, dtype=bool)]
            for slabs in (slabs_of(tmp_path, 0.0, seed=seed) for seed in range(12))
        ]
    )
    assert 0.4 < p.mean() < 0.6
    assert (p <= 0.05).mean() < 0.1


def test_any_false_pair_is_as_rare_as_the_corrected_p_says(tmp_path):
    found = [
        pairs_table(slabs, join_units(slabs), 99).p_corrected.min()
        for slabs in (slabs_of(tmp_path, 0.0, seed=seed) for seed in range(60))
    ]
    assert 0.3 < np.mean(found) < 0.7  # uniform: the smallest of a table is what chance gives
    assert np.mean(np.array(found) <= 0.1) < 0.2


def test_rows_at_a_time_and_permutations_at_a_time_do_not_show(tmp_path, monkeypatch):
    slabs = slabs_of(tmp_path, 0.5)
    whole = compare(slabs, join_units(slabs), 50)
    monkeypatch.setattr("teramind.attention.pairs._VALUES", 300)
    for a, b in zip(whole, compare(slabs, join_units(slabs), 50), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_parts_that_two_slabs_share_are_joined(tmp_path):
    slabs = slabs_of(tmp_path, 0.0)
    slabs[1].entries[0]["part"] = slabs[0].entries[0]["part"]
    units = join_units(slabs)
    assert len(units.labels) == 39
    assert units.patches.sum() == sum(e["patches"] for s in slabs for e in s.entries)
    assert ((0, 0), (1, 0)) in units.places


def test_genes_without_molecules_have_no_pairs_though_attention_follows_density(tmp_path):
    """Half the genes are there, and a region holds nine times as many molecules as the other."""
    torch.manual_seed(0)
    network = Network(NetworkSpec(patch=32, sections=1, stains=("DAPI",), genes=6, base=2, embed=8))
    counts = torch.zeros(4, 8, 2, 2, 1, 6)  # (row, column, bin, bin, section, gene)
    counts[:, :4, ..., :3] = torch.poisson(torch.ones(4, 4, 2, 2, 1, 3))
    counts[:, 4:, ..., :3] = torch.poisson(torch.full((4, 4, 2, 2, 1, 3), 9.0))
    plane = Rect(0, 0, 128, 256)
    regions = LabelImage(Path("r.tif"), np.repeat([[1, 2]], 8, 1).repeat(8, 0), plane, BIN)
    layout = Layout(plane, plane, patch=32, slab=256, windows=Windows(1, 1), steps=1, phases=1)
    tally = MatrixSums(tmp_path / "sums.npy", PatchUnits(layout, plane, [0], regions), 6)
    for row, patches in enumerate(counts):
        (matrices,) = gene_attention(network, patches)
        tally.add(row, np.arange(8), patches.sum((1, 2)), matrices)
    slabs = [SlabSums(tmp_path / "sums.npy", tally.finish([0], regions), GENES)]
    table = pairs_table(slabs, join_units(slabs), 99)
    assert len(table) == 2 * 6
    assert {*table.gene, *table.attends_to} == {"g0", "g1", "g2"}


def test_one_region_alone_has_no_pairs(tmp_path):
    slabs = slabs_of(tmp_path, 0.0)
    for slab in slabs:
        for entry in slab.entries:
            entry["region"] = "a"
    table = pairs_table(slabs, join_units(slabs), 9)
    assert list(table.columns) == list(COLUMNS)
    assert table.empty


def test_a_plane_without_molecules_is_refused(tmp_path):
    np.save(tmp_path / "s.npy", np.zeros((1, 6, 6), np.float32))
    record = {"genes": GENES, "entries": [{"section": 0, "patches": 0, "molecules": [0] * 6}]}
    (tmp_path / "s.json").write_text(json.dumps(record))
    slabs = open_sums([tmp_path / "s.json"], [tmp_path / "s.npy"])
    with pytest.raises(UserError, match="no patch of the region holds molecules"):
        write_means(slabs, tmp_path / "genes.h5ad", regions=False)
    assert not (tmp_path / "genes.h5ad").exists()


def test_receipts_of_an_older_program_are_refused(tmp_path):
    record = {"genes": GENES, "entries": [{"section": 0, "patches": 1}]}
    (tmp_path / "s.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"s\.json: of an older program, .* remove the receipts"):
        open_sums([tmp_path / "s.json"], [tmp_path / "s.npy"])


def test_the_table_says_how_many_molecules_of_each_gene_are_behind_each_layer(tmp_path):
    np.save(tmp_path / "s.npy", np.ones((3, 2, 2), np.float32))
    entries = [
        {"section": 0, "patches": 2, "molecules": [1, 0]},
        {"section": 1, "patches": 3, "molecules": [4, 2]},
        {"part": [0, 0], "region": "a", "patches": 2, "molecules": [3, 0]},
    ]
    slabs = [SlabSums(tmp_path / "s.npy", entries, ("x", "y"))] * 2
    write_means(slabs, tmp_path / "genes.h5ad", regions=True)
    assert anndata.read_h5ad(tmp_path / "genes.h5ad").obs.to_dict("list") == {
        "molecules": [10, 4],
        "molecules_region_a": [6, 0],
        "molecules_section_000": [2, 0],
        "molecules_section_001": [8, 4],
    }


def test_regions_that_hold_no_patch_are_refused(tmp_path):
    """A label image of zeros, or shapes that hold no patch's centre, leave no entry of a region."""
    np.save(tmp_path / "s.npy", np.ones((1, 2, 2), np.float32))
    entries = [{"section": 0, "patches": 2, "molecules": [1, 1]}]
    slabs = [SlabSums(tmp_path / "s.npy", entries, ("x", "y"))]
    with pytest.raises(UserError, match=r"^attention\.regions: no region holds a patch with"):
        write_means(slabs, tmp_path / "genes.h5ad", regions=True)


def write_table(path, matrix, names, molecules=1):
    genes = pd.Index(names)
    obs, var = pd.DataFrame({"molecules": molecules}, genes), pd.DataFrame(index=genes)
    anndata.AnnData(matrix.astype(np.float32), obs=obs, var=var).write_h5ad(path)
    return path


def brains(tmp_path, alike, genes=40):
    """Two brains whose genes' levels agree, and whose pairs agree as much as `alike`."""
    rng = np.random.default_rng(3)
    levels, shared = rng.normal(0, 1, genes), rng.normal(0, 0.3, (genes, genes))
    names = [f"g{i}" for i in range(genes)]
    paths = []
    for k in range(2):
        own = rng.normal(0, 0.3, (genes, genes))
        matrix = soft(levels + alike * shared + (1 - alike) * own)
        order = rng.permutation(genes)[: genes - k]
        table = matrix[np.ix_(order, order)]
        paths.append(write_table(tmp_path / f"{k}.h5ad", table, [names[i] for i in order]))
    return paths


def test_agreement_is_one_with_itself_and_none_between_strangers(tmp_path):
    first, second = brains(tmp_path, alike=0.0)
    assert agreement(first, first).r == pytest.approx(1)
    stranger = agreement(first, second)
    assert abs(stranger.r) < 0.15
    assert stranger.low < 0 < stranger.high
    assert stranger.genes == 39


def test_agreement_grows_with_what_is_shared(tmp_path):
    found = agreement(*brains(tmp_path, alike=0.6))
    assert 0.5 < found.low < found.r < found.high < 1


def test_brains_that_lack_the_same_genes_do_not_agree_by_that(tmp_path):
    """Queries as the network's: what is common to all, and a gene's own, where it has molecules."""
    rng = np.random.default_rng(0)
    there = np.arange(60) % 3 > 0
    common, names = rng.normal(0, 1, 64), [f"g{i}" for i in range(60)]
    paths = []
    for brain in "ab":
        queries = common + there[:, None] * rng.normal(0, 1, (60, 64))
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        matrix = soft(queries @ queries.T)
        paths.append(write_table(tmp_path / f"{brain}.h5ad", matrix, names, there.astype(int)))
    found = agreement(*paths)
    assert (found.genes, found.lacking) == (40, 20)
    assert found.low < 0 < found.high


def test_the_command_prints_one_line(tmp_path, capsys):
    first, second = brains(tmp_path, alike=0.6)
    assert main(["agreement", str(first), str(second)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == ["r", "low", "high", "genes", "lacking"]


@pytest.mark.filterwarnings("ignore:.* names are not unique")
def test_tables_that_cannot_be_compared_are_one_line(tmp_path, capsys):
    first, second = brains(tmp_path, alike=0.6)
    (tmp_path / "text.h5ad").write_text("x")
    with h5py.File(tmp_path / "obs.h5ad", "w") as file:
        file["obs"] = np.zeros(3)
    names = [f"g{i}" for i in range(6)]
    sparse = write_table(tmp_path / "sparse.h5ad", csr_matrix(np.eye(6)), names)
    twice = write_table(tmp_path / "twice.h5ad", np.eye(6), [*names[:5], "g0"])
    even = write_table(tmp_path / "even.h5ad", np.full((6, 6), 1 / 6), names)
    empty = write_table(tmp_path / "empty.h5ad", np.eye(6), names)
    with h5py.File(empty, "a") as file:
        del file["X"]
    others = write_table(tmp_path / "o.h5ad", np.eye(6), [f"h{i}" for i in range(6)])
    older = write_table(tmp_path / "older.h5ad", np.eye(6), names)
    with h5py.File(older, "a") as file:
        del file["obs/molecules"]
        file["obs"].attrs["column-order"] = np.array([], "S")
    for words, message in (
        ([first, tmp_path / "text.h5ad"], "text.h5ad: not a table of attention"),
        ([tmp_path / "obs.h5ad", first], "obs.h5ad: not a table of attention"),
        ([first, sparse], "sparse.h5ad: X is missing or sparse; must be dense"),
        ([first, empty], "empty.h5ad: X is missing or sparse; must be dense"),
        ([first, twice], "twice.h5ad: genes that are there twice: g0"),
        ([first, even], "even.h5ad: nothing to correlate"),
        ([first, others], "0 genes with molecules in both; at least 5 needed"),
        (
            [first, older],
            "older.h5ad: does not say which genes have molecules (no obs 'molecules')",
        ),
        ([first, second, "--layer", "section_000"], "no layer 'section_000'; it has none"),
    ):
        assert main(["agreement", *map(str, words)]) == 1
        printed = capsys.readouterr().err
        assert message in printed
        assert printed.count("\n") == 1
