"""Published expression tiles: overlaps are read once, faulty tiles are refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from teramind.errors import UserError
from teramind.expression.bin_expression import bin_expression
from teramind.expression.raster import Raster
from teramind.expression.tiles import TileSettings, _owner, import_tiles
from teramind.geometry import BIN, Rect

GOLDENS = Path(__file__).parents[2] / "shared/goldens"
PANEL = tuple("abcdef")
needs_goldens = pytest.mark.skipif(
    not (GOLDENS / "chain_genes").exists(), reason="the golden tiles are not beside the repository"
)


def name(row, column):
    y, x = 256 * row, 256 * column
    return f"{y}_{y + 256}_{x}_{x + 256}_{y - 128}_{y + 384}_{x - 128}_{x + 384}.npz"


def write_tile(folder, row, column, **changes):
    """A tile of 2 sections x 3 genes with one molecule at its first own pixel."""
    members = {
        "coords": np.array([[128], [128], [5]]),
        "data": np.array([1], np.uint16),
        "shape": np.array([512, 512, 6]),
        "fill_value": np.array(0),
    }
    members |= changes
    np.savez(folder / name(row, column), **{k: v for k, v in members.items() if v is not None})
    return folder


@needs_goldens
@pytest.mark.parametrize("known", [{"genes": 500}, {"sections": 4}])
def test_golden_tiles_give_the_histogram_of_all_molecules(tmp_path, known):
    summary = import_tiles(GOLDENS / "chain_genes", tmp_path / "r", panel=PANEL, **known)
    raster = Raster.open(tmp_path / "r")
    assert raster.extent == Rect(128, 384, 768, 1024) == Rect(*summary["extent"])
    chain = load_file(GOLDENS / "z4_all_64_chain.safetensors")
    y, x, section, gene = (
        chain[f"transcripts_{key}"].astype(int) for key in ("y", "x", "section", "gene")
    )
    expected = np.zeros((48, 64, 4, 6), int)
    row, column = (y - 128) // BIN, (x - 384) // BIN
    inside = (row >= 0) & (row < 48) & (column >= 0) & (column < 64)
    np.add.at(expected, (row[inside], column[inside], section[inside], gene[inside]), 1)
    counts = raster.counts(sections=range(4), rect=raster.extent)
    np.testing.assert_array_equal(counts, expected)
    assert summary["molecules"] == inside.sum()


@needs_goldens
def test_golden_tiles_bin_like_any_other_source(tmp_path):
    import_tiles(GOLDENS / "chain_genes", tmp_path / "a", panel=PANEL, genes=500)
    bin_expression(
        source=GOLDENS / "chain_genes",
        kind="tiles",
        raster_path=tmp_path / "b",
        panel=PANEL,
        sections=4,
        extent=None,
        panel_table_path=tmp_path / "panel.tsv",
        settings=TileSettings(genes=500),
    )
    a, b = (Raster.open(tmp_path / letter) for letter in "ab")
    dense = [raster.counts(sections=range(4), rect=a.extent) for raster in (a, b)]
    np.testing.assert_array_equal(*dense)
    listed = pd.read_csv(tmp_path / "panel.tsv", sep="\t")
    assert listed.molecules.tolist() == dense[0].sum(axis=(0, 1, 2), dtype=int).tolist()


@settings(max_examples=40, deadline=None)
@given(st.sets(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1, max_size=8))
def test_every_framed_pixel_comes_from_the_one_tile_it_lies_in_or_else_a_neighbour(tiles):
    places = dict.fromkeys(tiles, Path())
    for i in range(-8, 9):
        for j in range(-8, 9):
            framed = {(r, c) for r, c in tiles if -1 <= i - 2 * r <= 2 and -1 <= j - 2 * c <= 2}
            owner = _owner((i, j), places)
            assert (owner in framed) if framed else (owner is None)
            if (i // 2, j // 2) in tiles:
                assert owner == (i // 2, j // 2)


def test_counts_are_taken_from_the_last_axis_section_by_section(tmp_path):
    coords = np.array([[128, 130], [129, 511], [5, 1]])
    write_tile(tmp_path, 1, 2, coords=coords, data=np.array([7, 300], np.uint16))
    summary = import_tiles(tmp_path, tmp_path / "r", genes=3)
    raster = Raster.open(tmp_path / "r")
    assert raster.panel == ("gene_0", "gene_1", "gene_2")
    assert summary["sections"] == raster.sections == 2
    dense = raster.counts(sections=[0, 1], rect=Rect(128, 384, 512, 512))
    assert {tuple(place): dense[tuple(place)] for place in np.argwhere(dense)} == {
        (8, 8, 1, 2): 7,
        (8, 31, 0, 1): 300,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coords": np.array([[512], [0], [0]])}, "beyond the shape"),
        ({"coords": np.array([[0], [-1], [0]])}, "beyond the shape"),
        ({"coords": np.array([[0.5], [0], [0]])}, "integers"),
        ({"coords": np.zeros((3, 2), int)}, r"shape \(3, 2\) for data"),
        ({"data": np.array([-1])}, "whole counts"),
        ({"data": np.array([0.5])}, "whole counts"),
        ({"data": np.array([np.nan])}, "whole counts"),
        ({"data": np.array([{}], object)}, "plain arrays"),
        ({"data": None}, "plain arrays"),
        ({"shape": np.array([256, 256, 6])}, r"shape \[256, 256, 6\]"),
        ({"shape": np.array([512, 512, 7])}, "last axis of 7"),
        ({"fill_value": np.array(1)}, "fill_value"),
    ],
)
def test_faulty_tiles_are_refused_and_leave_no_raster(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        import_tiles(write_tile(tmp_path, 1, 1, **changes), tmp_path / "r", genes=3)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_tiles_that_disagree_in_shape_are_refused(tmp_path):
    write_tile(tmp_path, 1, 1)
    write_tile(tmp_path, 1, 2, shape=np.array([512, 512, 9]))
    with pytest.raises(UserError, match=r"512_768_128.*shape \[512, 512, 9\]"):
        import_tiles(tmp_path, tmp_path / "r", genes=3)


@pytest.mark.parametrize(
    "wrong",
    [
        "0_256_0_256_-128_384_-128_385.npz",
        "0_128_0_256_-128_256_-128_384.npz",
        "16_272_0_256_-112_400_-128_384.npz",
        "tile.npz",
    ],
)
def test_contradictory_names_are_refused(tmp_path, wrong):
    write_tile(tmp_path, 1, 1).joinpath(name(1, 1)).rename(tmp_path / wrong)
    with pytest.raises(UserError, match="not the name of a tile"):
        import_tiles(tmp_path, tmp_path / "r", genes=3)


@pytest.mark.parametrize("keep", [0, 300])
def test_a_truncated_tile_is_refused(tmp_path, keep):
    write_tile(tmp_path, 1, 1)
    file = tmp_path / name(1, 1)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="plain arrays"):
        import_tiles(tmp_path, tmp_path / "r", genes=3)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({}, "0 sections x 500 genes"),
        ({"genes": 4}, "1 sections x 4 genes"),
        ({"genes": 2, "sections": 2}, "6 is not"),
    ],
)
def test_sections_and_genes_must_make_the_last_axis(tmp_path, known, message):
    with pytest.raises(UserError, match=message):
        import_tiles(write_tile(tmp_path, 1, 1), tmp_path / "r", **known)


def test_molecules_beyond_the_panel_are_refused(tmp_path):
    with pytest.raises(UserError, match="gene 2 with a panel of 2 genes"):
        import_tiles(write_tile(tmp_path, 1, 1), tmp_path / "r", panel=("a", "b"), genes=3)


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        import_tiles(tmp_path / "absent", tmp_path / "r", genes=3)
    with pytest.raises(UserError, match="no expression tiles"):
        import_tiles(tmp_path, tmp_path / "r", genes=3)


def test_an_array_in_place_of_an_archive_is_refused(tmp_path):
    with (tmp_path / name(1, 1)).open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(UserError, match="plain arrays"):
        import_tiles(tmp_path, tmp_path / "r", genes=3)


def test_without_sections_genes_or_panel_there_are_500_genes_as_published(tmp_path, shared):
    summary = import_tiles(shared("goldens/chain_genes"), tmp_path / "raster.zarr")
    assert (summary["sections"], summary["genes"]) == (4, 500)
    raster = Raster.open(tmp_path / "raster.zarr")
    assert raster.bounds == Rect(256, 512, 512, 768)
    assert raster.extent == Rect(128, 384, 768, 1024)
