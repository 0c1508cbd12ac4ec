"""The extent command tells what the config asks for; importing the raster needs little."""

import json
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest

from teramind.__main__ import main
from teramind.expression.cells import CellSettings
from teramind.expression.extent import table_extent
from teramind.expression.molecules import MoleculeSettings

CSV = "gene,x,y,slice\nTh,0.5,30.0,3\nTh,9.9,-1.0,4\nGad1,5.0,2.0,3\n"


def test_the_command_prints_what_the_table_covers(tmp_path, capsys):
    (tmp_path / "m.csv").write_text(CSV)
    arguments = ["extent", str(tmp_path / "m.csv"), "--pixel-size", "0.5", "--section", "slice"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == {
        "extent": [-2, 1, 63, 19],
        "origin": [-1.0, 0.5],
        "plane": {"height": 63, "width": 19},
        "genes": 2,
        "molecules": 3,
        "rows_per_section_value": {"3": 2, "4": 1},
    }


def test_a_preset_names_the_columns_and_options_come_before_it(tmp_path, capsys):
    (tmp_path / "m.csv").write_text("gene,global_x,global_y,global_z,fov\nTh,1.0,2.0,6,1\n")
    arguments = ["extent", str(tmp_path / "m.csv"), "--pixel-size", "0.5", "--preset", "merscope"]
    for more, rows in (([], {"6": 1}), (["--section", "fov"], {"1": 1})):
        assert main([*arguments, *more]) == 0
        assert json.loads(capsys.readouterr().out)["rows_per_section_value"] == rows


def test_cells_may_have_counts_in_a_layer_and_names_of_genes_in_a_column(tmp_path, capsys):
    data = anndata.AnnData(
        np.array([[0.5, 0.25]], np.float32),
        var={"symbol": ["Th", "Th"]},
        layers={"counts": np.array([[3, 4]], np.float32)},
        obsm={"centres": np.array([[10.0, 20.0]])},
    )
    data.write_h5ad(tmp_path / "c.h5ad")
    arguments = ["extent", str(tmp_path / "c.h5ad"), "--pixel-size", "0.5", "--radius", "2"]
    arguments += ["--layer", "counts", "--spatial-key", "centres", "--gene", "symbol"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["genes"], found["molecules"], found["rows_per_section_value"]) == (1, 7, {})
    assert found["plane"] == {"height": 9, "width": 9}
    assert found["origin"] == [18.0, 8.0]


@pytest.mark.parametrize(("name", "kind"), [("m.csv", MoleculeSettings), ("c.h5ad", CellSettings)])
def test_the_origin_found_does_not_depend_on_the_one_given(tmp_path, name, kind):
    (tmp_path / "m.csv").write_text(CSV)
    centres = {"spatial": np.array([[10.0, 20.0]])}
    anndata.AnnData(np.ones((1, 1), np.float32), obsm=centres).write_h5ad(tmp_path / "c.h5ad")
    found = [
        table_extent(tmp_path / name, pixel_size_um=0.5, settings=kind(origin=origin))["origin"]
        for origin in ((0.0, 0.0), (10.0, 40.0))
    ]
    assert found[0] == found[1]


def test_a_fault_is_one_line_on_stderr(tmp_path, capsys):
    assert main(["extent", str(tmp_path / "absent.csv"), "--pixel-size", "0.5"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"error: {tmp_path}/absent.csv: no such file")


def test_reading_a_raster_needs_no_table_libraries():
    heavy = ["pyarrow", "pandas", "anndata", "h5py", "scipy", "torch", "matplotlib"]
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({heavy}))\n"
        "from teramind.expression.panel import match_genes, read_panel\n"
        "from teramind.expression.raster import Raster\n"
        "from teramind.expression.raster_writer import RasterWriter"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
