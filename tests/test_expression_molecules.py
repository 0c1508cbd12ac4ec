"""Molecule tables become rasters: every molecule in its bin, every fault named."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from workflow_project import config_with

from teramind.config import parse_config
from teramind.config.expression import PRESETS
from teramind.errors import UserError
from teramind.expression.batches import MoleculeColumns, read_batches
from teramind.expression.bin_expression import bin_expression
from teramind.expression.molecules import MoleculeSettings, MoleculeTable
from teramind.expression.raster import Raster
from teramind.expression.sections import section_label
from teramind.geometry import BIN, Rect
from teramind.report.facts import read_panel_report

PANEL = ("Gad1", "Slc17a7", "Th")
COLUMNS = MoleculeColumns(section="z")


def table(rows=400):
    random = np.random.default_rng(4)
    y, x = random.uniform(0, 40, (2, rows))
    gene = random.choice([*PANEL, "Blank-1"], rows)
    return pd.DataFrame({"gene": gene, "x": x, "y": y, "z": random.integers(0, 2, rows)})


def save(frame, path):
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    return path


def run(source, folder, *, columns=COLUMNS, settings=None, **changes):
    arguments = {
        "source": source,
        "raster_path": folder / "raster.zarr",
        "panel": PANEL,
        "sections": 2,
        "extent": Rect(0, 0, 80, 80),
        "panel_table_path": folder / "panel.tsv",
        "pixel_size_um": 0.5,
        "settings": MoleculeSettings(columns=columns, **(settings or {})),
    }
    return bin_expression(**(arguments | changes))


def histogram(frame, *, section, pixel_size, panel, shape):
    dense = np.zeros((*shape, len(panel)), int)
    frame = frame[(frame.z == section) & frame.gene.isin(panel)]
    bins = [(frame[axis] / pixel_size // BIN).astype(int) for axis in ("y", "x")]
    np.add.at(dense, (*bins, [panel.index(gene) for gene in frame.gene]), 1)
    return dense


def test_reading_a_longer_table_holds_no_more_memory(tmp_path):
    rows = 20_000

    def most_held(groups):
        source = tmp_path / f"{groups}.parquet"
        table(rows * groups).to_parquet(source, row_group_size=rows)
        before = pa.total_allocated_bytes()
        return max(pa.total_allocated_bytes() - before for _ in read_batches(source, COLUMNS))

    assert most_held(40) < 2 * most_held(4)


def test_reading_a_larger_row_group_holds_no_more_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("teramind.expression.batches._BATCH_ROWS", 1 << 10)
    monkeypatch.setattr("teramind.expression.batches._BUFFER_BYTES", 1 << 12)

    def most_held(rows):
        source = tmp_path / f"{rows}.parquet"
        table(rows).to_parquet(source, use_dictionary=False, row_group_size=rows)
        before = pa.total_allocated_bytes()
        return max(pa.total_allocated_bytes() - before for _ in read_batches(source, COLUMNS))

    assert most_held(200_000) < 2 * most_held(40_000)


@pytest.mark.parametrize("name", ["m.csv", "m.csv.gz", "m.parquet"])
def test_every_format_gives_the_same_histogram(tmp_path, name):
    frame = table()
    summary = run(save(frame, tmp_path / name), tmp_path)
    raster = Raster.open(tmp_path / "raster.zarr")
    for section in (0, 1):
        counts = raster.counts(sections=[section], rect=Rect(0, 0, 80, 80))[:, :, 0]
        expected = histogram(frame, section=section, pixel_size=0.5, panel=PANEL, shape=(5, 5))
        np.testing.assert_array_equal(counts, expected)
    assert summary["molecules_in_raster"] == (frame.gene != "Blank-1").sum()
    assert summary["molecules_of_other_genes"] == (frame.gene == "Blank-1").sum()
    assert (summary["panel_genes"], summary["panel_genes_matched"]) == (3, 3)


def test_a_real_field_keeps_every_molecule_of_the_panel(shared, tmp_path):
    field = shared("data/merscope_dg_transcripts.parquet")
    frame = pd.read_parquet(field).rename(columns={"x_um": "x", "y_um": "y"})
    frame = frame.astype({"x": float, "y": float})
    panel = sorted(frame.gene.unique())
    columns = MoleculeColumns(x="x_um", y="y_um", section="z")
    run(field, tmp_path, columns=columns, panel=panel, extent=None, pixel_size_um=0.43)
    raster = Raster.open(tmp_path / "raster.zarr")
    for section in (0, 1):
        counts = raster.counts(sections=[section], rect=raster.extent)[:, :, 0]
        expected = histogram(
            frame, section=section, pixel_size=0.43, panel=panel, shape=counts.shape[:2]
        )
        np.testing.assert_array_equal(counts, expected)
    listed = pd.read_csv(tmp_path / "panel.tsv", sep="\t").set_index("panel_gene").molecules
    assert listed.to_dict() == frame.gene.astype(str).value_counts().to_dict()


def test_batches_do_not_matter(tmp_path, monkeypatch):
    source = save(table(), tmp_path / "m.parquet")
    totals = []
    for rows in (7, 1000):
        monkeypatch.setattr("teramind.expression.batches._BATCH_ROWS", rows)
        (tmp_path / str(rows)).mkdir()
        run(source, tmp_path / str(rows))
        raster = Raster.open(tmp_path / str(rows) / "raster.zarr")
        totals.append(raster.counts(sections=[0, 1], rect=raster.extent))
    np.testing.assert_array_equal(*totals)


def test_origin_moves_pixel_zero(tmp_path):
    frame = pd.DataFrame({"gene": "Th", "x": [100.0, 107.99], "y": [-50.0, -50.0], "z": 0})
    source = save(frame, tmp_path / "m.parquet")
    run(source, tmp_path, sections=1, settings={"origin": (-50.0, 100.0)}, minimum_overlap=0)
    raster = Raster.open(tmp_path / "raster.zarr")
    assert raster.totals(section=0, rect=Rect(0, 0, 16, 16)).tolist() == [[2]]


def test_pixel_units_need_no_pixel_size(tmp_path):
    frame = pd.DataFrame({"gene": "Th", "x": [15, 16], "y": [0, 79], "z": 0})
    source = save(frame, tmp_path / "m.csv")
    settings = {"units": "pixel"}
    run(source, tmp_path, settings=settings, sections=1, pixel_size_um=None, minimum_overlap=0)
    total = Raster.open(tmp_path / "raster.zarr").totals(section=0, rect=Rect(0, 0, 80, 80))
    assert np.argwhere(total).tolist() == [[0, 0], [4, 1]]


def test_section_values_order_the_sections(tmp_path):
    frame = table().assign(z=lambda f: f.z.map({0: "1.5", 1: "0.0"}))
    summary = run(save(frame, tmp_path / "m.csv"), tmp_path, settings={"section_values": [0, 1.5]})
    kept = frame[frame.gene != "Blank-1"].z
    assert summary["molecules_per_section"] == [(kept == "0.0").sum(), (kept == "1.5").sum()]


def test_several_names_of_one_gene_add_up(tmp_path):
    frame = table()
    summary = run(save(frame, tmp_path / "m.csv"), tmp_path, synonyms={"Blank-1": "Th"})
    assert summary["molecules_in_raster"] == len(frame)
    listed = pd.read_csv(tmp_path / "panel.tsv", sep="\t").set_index("panel_gene")
    assert listed.status["Th"] == "summed"
    assert listed.molecules["Th"] == frame.gene.isin(["Th", "Blank-1"]).sum()


@pytest.mark.parametrize("preset", ["merscope", "xenium"])
def test_presets_read_the_columns_of_their_format(tmp_path, preset):
    headers = {
        "merscope": ",barcode_id,global_x,global_y,global_z,x,y,fov,gene,transcript_id\n"
        "0,17,8.0,4.0,1.0,1500,1500,0,Th,ENSMUST1\n",
        "xenium": "transcript_id,cell_id,overlaps_nucleus,feature_name,x_location,y_location,"
        "z_location,qv\n1,a,0,Th,8.0,4.0,13.7,40\n",
    }
    (tmp_path / "m.csv").write_text(headers[preset])
    run(tmp_path / "m.csv", tmp_path, columns=MoleculeColumns(**PRESETS[preset]), minimum_overlap=0)
    dense = Raster.open(tmp_path / "raster.zarr").counts(sections=[0, 1], rect=Rect(0, 0, 80, 80))
    section = 1 if preset == "merscope" else 0
    assert np.argwhere(dense).tolist() == [[0, 1, section, PANEL.index("Th")]]


def test_parquet_genes_and_sections_may_be_bytes(tmp_path):
    frame = table().astype({"z": str})
    frame = frame.assign(**{name: frame[name].str.encode("utf-8") for name in ("gene", "z")})
    run(save(frame, tmp_path / "m.parquet"), tmp_path, minimum_overlap=1)


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_a_column_with_more_names_than_there_are_genes_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr("teramind.expression.molecules._MOST_GENES", 3)
    with pytest.raises(UserError, match="column gene: more than 3 different values: name a col"):
        run(save(table(), tmp_path / name), tmp_path)


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_missing_columns_are_named_beside_those_present(tmp_path, name):
    with pytest.raises(UserError, match=r"missing: global_x; present: gene, x, y, z"):
        run(save(table(), tmp_path / name), tmp_path, columns=MoleculeColumns(x="global_x"))


@pytest.mark.parametrize(("name", "row"), [("m.csv", 7), ("m.parquet", 6)])  # a header is row 1
def test_coordinates_that_are_not_finite_are_counted_and_located(tmp_path, name, row):
    frame = table()
    frame.loc[[5, 9], "x"] = np.nan
    frame.loc[7, "y"] = np.inf
    with pytest.raises(UserError, match=f"columns x and y: 3 of 400 rows.*first is row {row}:"):
        run(save(frame, tmp_path / name), tmp_path)


@pytest.mark.parametrize(
    ("name", "message"), [("m.csv", "column y, row 4: 'five'"), ("m.parquet", "column y")]
)
def test_coordinates_that_are_no_numbers_are_named(tmp_path, name, message):
    frame = table().astype({"y": object})
    frame["y"] = frame.y.astype(str)
    frame.loc[2, "y"] = "five"
    with pytest.raises(UserError, match=f"(?i){message}"):
        run(save(frame, tmp_path / name), tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"section_values": [0, 2]}, "column z: values without a section: '1'.*'0', '2'"),
        ({"section_values": [0, 1, 7]}, "3 different section_values for 2 sections"),
        ({"section_values": [1, 1]}, "1 different section_values for 2 sections"),
    ],
)
def test_section_values_that_do_not_fit_are_named(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        run(save(table(), tmp_path / "m.csv"), tmp_path, settings=settings)


def test_sections_without_molecules_are_said_in_the_log(tmp_path, capsys):
    for number, (labels, said) in enumerate({(3, 7): True, (0, 1): False}.items()):
        (folder := tmp_path / str(number)).mkdir()
        frame = table().assign(z=lambda f, labels=labels: f.z.map(dict(enumerate(labels))))
        run(save(frame, folder / "m.csv"), folder, sections=max(labels) + 1)
        err = capsys.readouterr().err
        assert ("m.csv: 6 of 8 sections hold no molecules; section_values lists" in err) is said


def test_millimetres_read_as_micrometres_are_refused(tmp_path):
    frame = table()
    frame[["x", "y"]] /= 1000
    source, plane = save(frame, tmp_path / "m.csv"), Rect(0, 0, 128, 160)
    with pytest.raises(UserError) as caught:
        run(source, tmp_path, extent=plane)
    assert str(caught.value) == (
        f"{source}: all molecules lie in y 0..0, x 0..0 pixels, under 1% of height and width of"
        " what is drawn, y 0..127, x 0..159 pixels: check units and pixel size"
    )
    run(source, tmp_path, extent=plane, region=Rect(0, 0, 64, 64))  # may be cut to the region


def test_x_and_y_that_would_fit_if_exchanged_are_said(tmp_path):
    narrow = {"extent": Rect(0, 0, 32, 80)}
    frame = table().assign(x=lambda f: f.x * 0.4)  # 80 x 32 pixels
    with pytest.raises(UserError, match=r"units, and whether x and y are exchanged$"):
        run(save(frame, tmp_path / "m.csv"), tmp_path, **narrow)
    with pytest.raises(UserError, match=r"units$"):  # 80 x 80 pixels fit neither way
        run(save(table(), tmp_path / "m.csv"), tmp_path, **narrow)
    turned = frame.rename(columns={"x": "y", "y": "x"})
    run(save(turned, tmp_path / "m.csv"), tmp_path, **narrow)


def test_a_section_value_without_rows_is_named(tmp_path):
    frame = table().query("z == 0")
    with pytest.raises(UserError, match="no row has the section_values '1'; values found: '0'"):
        run(save(frame, tmp_path / "m.csv"), tmp_path, settings={"section_values": [0, 1]})


@pytest.mark.parametrize(("genes", "fault"), [("ab", None), ("cd", r"^0 of 2 panel genes found")])
def test_of_a_longer_panel_those_that_the_network_reads_are_what_data_must_have(
    tmp_path, genes, fault
):
    """Of panel a, b, c, d the network reads a and b; the raster holds all that data has."""
    places = {"x": [1, 1, 9, 99], "y": 1, "z": [0, 1, 0, 0]}
    source = save(pd.DataFrame({"gene": [*genes, "c", "c"]} | places), tmp_path / "m.csv")
    settings = {"panel": tuple("abcd"), "genes": 2, "outside": "skip"}
    if fault:
        with pytest.raises(UserError, match=fault):
            run(source, tmp_path, **settings)
        return
    summary = run(source, tmp_path, **settings)
    assert (summary["molecules"], summary["molecules_of_other_genes"]) == (2, 2)
    assert (summary["molecules_outside"], summary["molecules_in_raster"]) == (0, 3)
    assert Raster.open(tmp_path / "raster.zarr").panel == tuple("abcd")
    report = read_panel_report(tmp_path / "panel.tsv")
    assert (report.found, report.size, report.extra) == (2, 2, ("c",))


def test_one_percent_outside_is_borne_and_counted(tmp_path):
    frame = pd.DataFrame({"gene": "Th", "x": [1.0] * 99 + [500.0], "y": 1.0, "z": 0})
    summary = run(save(frame, tmp_path / "m.csv"), tmp_path, minimum_overlap=0)
    assert (summary["molecules_in_raster"], summary["molecules_outside"]) == (99, 1)


def test_a_plane_cut_from_larger_data_has_all_the_expression_that_drawing_it_reads(tmp_path):
    """Also where patches reach beyond its last pixels, and half a patch around it."""
    frame = table(4000)
    frame[["y", "x"]] *= 10  # 800 x 800 pixels
    source = save(frame, tmp_path / "m.csv")
    plane = {"plane__y": 100, "plane__x": 70, "plane__height": 490, "plane__width": 200}
    config = parse_config(config_with(**plane))
    read = config.volume.grown(config.network.patch // 2)
    counts = []
    for name, extent in (("cut", config.raster_extent), ("all", Rect(0, 0, 800, 800))):
        (tmp_path / name).mkdir()
        run(source, tmp_path / name, extent=extent, bounds=config.plane.rect, outside="skip")
        raster = Raster.open(tmp_path / name / "raster.zarr")
        counts.append(raster.counts(sections=[0, 1], rect=read))
    np.testing.assert_array_equal(*counts)
    assert counts[0][:, -1].any()


def test_molecules_around_the_plane_are_kept_but_count_as_outside(tmp_path):
    plane, extent = Rect(16, 16, 48, 64), Rect(-16, -16, 112, 128)
    around = pd.DataFrame({"gene": "Th", "x": [8, 20, 50], "y": [20, 34, 20], "z": 0})
    source = save(around, tmp_path / "m.csv")
    told = r"2 of 3 molecules lie outside the extent y 16\.\.63, x 16\.\.79 pixels"
    with pytest.raises(UserError, match=told):
        run(source, tmp_path, extent=extent, bounds=plane, minimum_overlap=0)
    changes = {"extent": extent, "bounds": plane, "minimum_overlap": 0, "outside": "skip"}
    summary = run(source, tmp_path, **changes)
    assert [summary[f"molecules{where}"] for where in ("", "_in_raster", "_outside")] == [3, 3, 2]


def test_more_outside_is_an_error_with_both_extents_unless_cut_on_purpose(tmp_path):
    source = save(table(), tmp_path / "m.csv")
    extent = Rect(160, 16, 32, 48)
    with pytest.raises(
        UserError, match=r"y 160\.\.191, x 16\.\.63 pixels; the data covers y 0\.\.79"
    ):
        run(source, tmp_path, extent=extent)
    assert list(tmp_path.iterdir()) == [source]
    summary = run(source, tmp_path, extent=extent, outside="skip")
    assert summary["molecules_outside"] == summary["molecules"] > 0


def test_too_few_panel_genes_leave_nothing_written(tmp_path):
    source = save(table(), tmp_path / "m.csv")
    with pytest.raises(UserError, match="1 of 3 panel genes"):
        run(source, tmp_path, panel=("Th", "Aqp4", "Cldn5"))
    assert list(tmp_path.iterdir()) == [source]


def test_um_coordinates_need_a_pixel_size(tmp_path):
    source = save(table(), tmp_path / "m.csv")
    with pytest.raises(UserError, match="pixel_size_um"):
        MoleculeTable(source, settings=MoleculeSettings(), pixel_size_um=None)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("3", 3.0, True),
        (" 3 ", "3.0", True),
        ("0.50", "0.5", True),
        ("1e3", 1000, True),
        ("1_10", "110", False),
        (12345678901234567, 12345678901234568, False),
        ("z1", "z01", False),
    ],
)
def test_sections_are_one_where_their_values_are(one, other, same):
    assert (section_label(one) == section_label(other)) is same
