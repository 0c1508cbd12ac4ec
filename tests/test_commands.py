"""The command line says what is wrong in one line and never with a traceback."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from workflow_project import config_with, write_network

from teramind import commands
from teramind.__main__ import main


def test_every_command_is_listed_with_what_it_does(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    for command in pkgutil.iter_modules(commands.__path__):
        module = importlib.import_module(f"teramind.commands.{command.name}")
        assert f"{command.name} {module.__doc__.splitlines()[0]}" in printed


def test_check_says_all_that_is_wrong_in_one_go(tmp_path, capsys, monkeypatch):
    """A file that is missing hides neither a faulty one nor genes that no network reads."""
    monkeypatch.chdir(tmp_path)
    attention = {"pathways": "p.gmt", "regions": "r.geojson"}
    made = config_with(attention=attention, network__stains=["DAPI"])
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(made))
    (tmp_path / "p.gmt").write_text("A\t\tGad1\tVip\n")
    (tmp_path / "r.geojson").write_text("{}")
    write_network(tmp_path / "network.safetensors")
    assert main(["check", "c.yaml"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[2].split(":")[0].strip() for line in lines] == [
        "expression.source",
        "network.stains",
        "pathway genes not on the panel of 3 genes",
        "regions r.geojson",
    ]


def test_check_says_once_that_a_checkpoint_is_none(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = config_with(attention__pathways="p.gmt")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(made))
    (tmp_path / "p.gmt").write_text("A\t\tGad1\tTh\n")
    (tmp_path / "molecules.csv").touch()
    (tmp_path / "network.safetensors").touch()
    assert main(["check", "c.yaml"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: checkpoint network.safetensors: truncated or not a safetensors")
    write_network(tmp_path / "network.safetensors")
    assert main(["check", "c.yaml"]) == 0


def extent_to(stdout, folder):
    """The command `extent`, its output buffered as a shell would have it."""
    (folder / "m.csv").write_text("gene,x,y\nTh,1,1\n")
    words = ["-m", "teramind", "extent", str(folder / "m.csv"), "--pixel-size", "1"]
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, *words], stdout=stdout, stderr=subprocess.PIPE, text=True, env=buffered
    )


def test_output_that_finds_no_room_is_one_line(tmp_path):
    with Path("/dev/full").open("w") as full:
        done = extent_to(full, tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "error: writing: the disk is full; nothing half-written is kept\n",
    )


def test_output_that_nobody_reads_is_dropped(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = extent_to(writer, tmp_path)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


HEADER = "section,stain,area,subject,measure,scale_um,value\n"
MEASURES = (
    "0,DAPI,whole,generated,nuclei_f1,,0.5",
    "0,DAPI,whole,generated,nuclei_per_mm2,,100",
    "0,DAPI,whole,real,nuclei_per_mm2,,200",
    "0,DAPI,whole,generated,correlation,5,0.9",
    "0,DAPI,whole,generated,patch_border_ratio,,1.5",
)


@pytest.mark.parametrize(
    "content",
    [
        "words, and\nmore, words, than, columns\n",
        "a,b\n1,2\n",
        f"{HEADER}0,DAPI,whole,generated,nuclei_f1,,many\n",
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, content):
    table = tmp_path / "table.csv"
    table.write_text(content)
    assert main(["headline", str(table)]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {table}: not an evaluation's table: ")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_volume_that_nothing_was_compared_with_has_no_headline(tmp_path, capsys):
    (tmp_path / "e.csv").write_text(HEADER + MEASURES[-1])
    assert main(["headline", str(tmp_path / "e.csv")]) == 1
    assert "compares with no real images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "missing"),
    [
        (0, "nuclei_f1"),
        (1, "count_ratio"),
        (3, "correlation_5um"),
        (4, "patch_border_ratio"),
    ],
)
def test_a_headline_names_the_measure_that_is_missing(tmp_path, capsys, row, missing):
    table = tmp_path / "e.csv"
    table.write_text(HEADER + "\n".join(MEASURES))
    assert main(["headline", str(table)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["count_ratio"] == 0.5
    table.write_text(HEADER + "\n".join(line for line in MEASURES if line != MEASURES[row]))
    assert main(["headline", str(table)]) == 1
    assert f"e.csv: does not tell {missing}; " in capsys.readouterr().err


def test_a_headline_needs_nuclei_in_the_real_image(tmp_path, capsys):
    table = tmp_path / "e.csv"
    table.write_text(HEADER + "\n".join(MEASURES).replace(",200", ",0"))
    assert main(["headline", str(table)]) == 1
    assert "e.csv: does not tell count_ratio; " in capsys.readouterr().err


def test_a_phantom_replaces_no_file(tmp_path, capsys):
    words = ["phantom", str(tmp_path), "--height", "16", "--width", "16", "--sections", "1"]
    (tmp_path / "panel.txt").write_text("mine")
    assert main(words) == 1
    assert f"error: {tmp_path}/panel.txt: is there already" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "panel.txt").rename(tmp_path / "genes.txt")
    assert main(words) == 0
    assert main(words) == 1


def test_the_plane_that_a_phantom_prints_is_the_one_it_made(tmp_path, capsys):
    pixel, spacing = 0.123456789, 1234567.5
    size = ["--height", "16", "--width", "16", "--sections", "1"]
    um = ["--pixel-size", str(pixel), "--spacing", str(spacing)]
    assert main(["phantom", str(tmp_path), *size, *um]) == 0
    plane = yaml.safe_load(capsys.readouterr().out.partition("plane ")[2])
    assert (plane["pixel_size_um"], plane["section_spacing_um"]) == (pixel, spacing)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["check", "{}/absent.yaml"], "{}/absent.yaml: "),
        (["plan", "--configfile", "{}/absent.yaml"], "{}/absent.yaml: "),
        (["plan", "--memory", "0.001"], "limits of a search; add --search"),
        (["train", "--configfile", "{}/absent.yaml"], "{}/absent.yaml: "),
        (["verify", "{}"], "{}: no record of a volume here; name a results folder"),
        (["headline", "{}/absent.csv"], "{}/absent.csv: "),
        (["extent", "{}/absent.csv", "--pixel-size", "1"], "{}/absent.csv: no such file"),
        (
            ["extent", "{}/c.h5ad", "--pixel-size", "1", "--x", "a", "--preset", "merscope"],
            "error: --preset, --x: not for .h5ad files; leave out",
        ),
        (
            ["extent", "{}/m.csv", "--pixel-size", "1", "--spatial-key", "a", "--radius", "2"],
            "error: --spatial-key, --radius: not for .csv files; leave out",
        ),
        (["agreement", "{}/a.h5ad", "{}/b.h5ad"], "{}/a.h5ad: "),
        (["phantom", "{}/file/inside"], "{}/file/inside: Not a directory"),
        (["phantom", "{}/p", "--pixel-size", "inf"], "phantom: pixel_size_um is inf; "),
        (["phantom", "{}/p", "--height", "0"], "phantom: height is 0; "),
    ],
)
def test_no_command_ends_in_a_traceback(tmp_path, capsys, words, line):
    (tmp_path / "file").touch()
    size = ["--height", "64", "--width", "64", "--sections", "1"] * (words[0] == "phantom")
    assert main([words[0], *size, *(word.format(tmp_path) for word in words[1:])]) == 1
    printed = capsys.readouterr()
    assert line.format(tmp_path) in printed.err
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
