"""Cells x genes files: counts conserved, molecules near their cell, faults named."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from teramind.errors import UserError
from teramind.expression.bin_expression import bin_expression
from teramind.expression.cells import CellSettings, CellTable
from teramind.expression.raster import Raster
from teramind.geometry import BIN

PANEL = ("Gad1", "Slc17a7", "Th")


def cells(counts=None, *, number=30, path, matrix=sparse.csr_matrix):
    random = np.random.default_rng(5)
    counts = random.poisson(3.0, (number, 4)) if counts is None else np.array(counts)
    obs = pd.DataFrame({"slice": random.choice(["post", "ant"], len(counts))})
    obs.index = obs.index.astype(str)
    data = anndata.AnnData(
        matrix(counts.astype(np.float32)),
        obs=obs,
        var=pd.DataFrame(index=[*PANEL, "Blank-1"]),
        obsm={"spatial": random.uniform(0, 200, (len(counts), 2))},
        layers={"normalised": sparse.csr_matrix(counts * 0.37)},
    )
    data.write_h5ad(path)
    return data


def run(source, folder, *, panel=PANEL, sections=1, extent=None, **settings):
    return bin_expression(
        source=source,
        raster_path=folder / "raster.zarr",
        panel=panel,
        sections=sections,
        extent=extent,
        panel_table_path=folder / "panel.tsv",
        pixel_size_um=0.5,
        settings=CellSettings(**settings),
    )


@pytest.mark.parametrize("name", ["merfish_poa", "starmap_visual_cortex"])
def test_real_cells_keep_every_count_of_every_gene(shared, tmp_path, name):
    source = shared(f"data/{name}.h5ad")
    data = anndata.read_h5ad(source)
    run(source, tmp_path, panel=[name.strip() for name in data.var_names])  # some are padded
    raster = Raster.open(tmp_path / "raster.zarr")
    dense = raster.counts(sections=[0], rect=raster.extent)
    per_gene = np.asarray(data.X.sum(axis=0)).ravel().astype(int)
    np.testing.assert_array_equal(dense.sum(axis=(0, 1, 2), dtype=int), per_gene)


@pytest.mark.parametrize("matrix", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_every_matrix_form_keeps_the_counts(tmp_path, matrix):
    data = cells(path=tmp_path / "c.h5ad", matrix=matrix)
    summary = run(tmp_path / "c.h5ad", tmp_path)
    assert summary["molecules_in_raster"] == data.X[:, :3].sum()
    assert summary["molecules_of_other_genes"] == data.X[:, 3].sum()


def test_names_may_stand_beside_the_ids_of_genes_and_two_ids_may_share_one(tmp_path):
    data = cells(path=tmp_path / "c.h5ad")
    data.var["symbol"] = pd.Categorical(["Gad1", "Slc17a7", "Gad1", "Blank-1"])
    data.var.index = [f"ENSMUSG{k}" for k in range(4)]
    data.write_h5ad(tmp_path / "c.h5ad")
    run(tmp_path / "c.h5ad", tmp_path, panel=PANEL[:2], gene="symbol")
    raster = Raster.open(tmp_path / "raster.zarr")
    found = raster.counts(sections=[0], rect=raster.extent).sum((0, 1, 2))
    assert found.tolist() == [data.X[:, [0, 2]].sum(), data.X[:, 1].sum()]


def test_a_column_of_names_that_is_not_there_is_named_beside_those_that_are(tmp_path):
    data = cells(path=tmp_path / "c.h5ad")
    data.var["symbol"] = [*PANEL, "Blank-1"]
    data.write_h5ad(tmp_path / "c.h5ad")
    with pytest.raises(UserError, match=r"no var\['name'\]; present: symbol"):
        run(tmp_path / "c.h5ad", tmp_path, gene="name")


def test_molecules_lie_inside_the_disc_of_their_cell_and_fill_it(tmp_path):
    cells([[0, 4000, 40, 0]], path=tmp_path / "c.h5ad")
    table = CellTable(tmp_path / "c.h5ad", settings=CellSettings(radius_um=20.0), pixel_size_um=0.5)
    (chunk,) = table.read({"Slc17a7": 0, "Th": 1})
    centre = anndata.read_h5ad(tmp_path / "c.h5ad").obsm["spatial"][0]
    dx, dy = chunk.x + 0.5 - centre[0] / 0.5, chunk.y + 0.5 - centre[1] / 0.5
    assert np.hypot(dy, dx).max() < 40 + 1
    for gene, spread in ((0, 0.02), (1, 0.15)):
        mine = chunk.gene == gene
        quadrant = 2 * (dy[mine] > 0) + (dx[mine] > 0)
        share = np.bincount(quadrant, minlength=4) / mine.sum()
        assert abs(share - 0.25).max() < spread
        assert abs((np.hypot(dy, dx)[mine] < 40 / np.sqrt(2)).mean() - 0.5) < spread


def test_neither_chunks_nor_other_cells_move_a_molecule(tmp_path, monkeypatch):
    data = cells(path=tmp_path / "c.h5ad")
    data[::-1].copy().write_h5ad(tmp_path / "reversed.h5ad")
    dense = []
    for name, values in (("c", 1 << 20), ("c", 8), ("reversed", 40)):
        monkeypatch.setattr("teramind.expression.cells._CHUNK_VALUES", values)
        folder = tmp_path / f"{name}{values}"
        folder.mkdir()
        run(tmp_path / f"{name}.h5ad", folder)
        raster = Raster.open(folder / "raster.zarr")
        dense.append(raster.counts(sections=[0], rect=raster.extent))
    np.testing.assert_array_equal(dense[0], dense[1])
    np.testing.assert_array_equal(dense[0], dense[2])


def test_sections_follow_the_values_of_the_section_column(tmp_path):
    data = cells(path=tmp_path / "c.h5ad")
    summary = run(
        tmp_path / "c.h5ad",
        tmp_path,
        sections=2,
        section="slice",
        section_values=["ant", "post"],
    )
    sums = [data[data.obs["slice"] == value].X[:, :3].sum() for value in ("ant", "post")]
    assert summary["molecules_per_section"] == sums


def test_pixel_units_and_origin_place_the_cell(tmp_path):
    data = cells([[1, 0, 0, 0]], path=tmp_path / "c.h5ad")
    x, y = data.obsm["spatial"][0]
    settings = {"units": "pixel", "radius_um": 0.0, "origin": (y - 40, x - 1000)}
    run(tmp_path / "c.h5ad", tmp_path, **settings)
    raster = Raster.open(tmp_path / "raster.zarr")
    assert (raster.extent.y, raster.extent.x) == (40 // BIN * BIN, 1000 // BIN * BIN)
    assert raster.totals(section=0, rect=raster.extent).tolist() == [[1]]


@pytest.mark.parametrize("value", [-1.0, 0.5, np.nan])
def test_values_that_are_no_counts_are_located(tmp_path, value):
    cells([[1, 0, 0, 0], [0, 0, value, 0]], path=tmp_path / "c.h5ad")
    with pytest.raises(UserError, match=r"X, cell 1: holds .*layers: normalised"):
        run(tmp_path / "c.h5ad", tmp_path)


@pytest.mark.parametrize("narrow", [np.uint8, np.int8, np.uint16])
def test_counts_stored_in_parts_add_up_in_any_type(tmp_path, narrow):
    most = np.iinfo(narrow).max
    twice = sparse.csr_matrix(
        (np.full(2, most, narrow), np.zeros(2, int), np.array([0, 2])), shape=(1, 4)
    )
    cells([[0, 0, 0, 0]], path=tmp_path / "c.h5ad", matrix=lambda _: twice)
    assert run(tmp_path / "c.h5ad", tmp_path)["molecules"] == 2 * int(most)


def test_a_layer_replaces_x(tmp_path):
    cells(path=tmp_path / "c.h5ad")
    with pytest.raises(UserError, match="layers/normalised, cell 0"):
        run(tmp_path / "c.h5ad", tmp_path, layer="normalised")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spatial_key": "xy"}, r"no obsm\['xy'\]; present: spatial"),
        ({"section": "z"}, r"no obs\['z'\]; present: .*slice"),
        ({"layer": "raw"}, r"no layers\['raw'\]; present: normalised"),
        ({"section": "slice"}, "values without a section"),
        ({"section": "slice", "section_values": ["ant"]}, "without a section: 'post'"),
    ],
)
def test_absent_keys_and_values_are_named(tmp_path, settings, message):
    cells(path=tmp_path / "c.h5ad")
    with pytest.raises(UserError, match=message):
        run(tmp_path / "c.h5ad", tmp_path, **settings)


def test_centres_that_are_not_finite_are_counted(tmp_path):
    data = cells(path=tmp_path / "c.h5ad")
    data.obsm["spatial"][[3, 4], 1] = np.nan
    data.write_h5ad(tmp_path / "c.h5ad")
    with pytest.raises(UserError, match=r"2 of 30 cells.*first is cell 3"):
        run(tmp_path / "c.h5ad", tmp_path)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        run(tmp_path / "absent.h5ad", tmp_path)
    (tmp_path / "text.h5ad").write_text("x")
    with pytest.raises(UserError, match="not an AnnData file"):
        run(tmp_path / "text.h5ad", tmp_path)


@pytest.mark.parametrize("part", ["obs", "var", "obsm", "layers"])
def test_files_of_an_old_anndata_are_refused_with_the_remedy(tmp_path, part):
    cells(path=tmp_path / "c.h5ad")
    with h5py.File(tmp_path / "c.h5ad", "r+") as file:
        del file[part]
        file[part] = np.zeros(30, [("index", "S4"), ("spatial", "f8", 2)])
    with pytest.raises(UserError, match=r"c\.h5ad: written by an anndata before 0\.7: read it"):
        run(tmp_path / "c.h5ad", tmp_path)


def test_counts_by_column_are_turned_while_they_fit_in_memory(tmp_path, monkeypatch):
    path = tmp_path / "c.h5ad"
    cells([[3, 0, 1, 0]], path=path, matrix=sparse.csc_matrix)
    monkeypatch.setattr("teramind.expression.cells._MOST_BY_COLUMN", 1)
    with pytest.raises(UserError, match=r"2 counts stored gene by gene \(CSC\).*tocsr"):
        run(path, tmp_path)
