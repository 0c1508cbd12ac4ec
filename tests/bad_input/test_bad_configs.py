"""Configuration files that users and attackers bring, and what is said to them."""

import pytest
from said import check, file, row
from workflow_project import Project, config_with

from teramind.__main__ import main
from teramind.config import parse_config
from teramind.config.reading import read_config
from teramind.errors import UserError

RUNS = "__use_yte__: true\ntitle: ?__import__('os').mkdir('ran')\n"
TEXT = "must be one line of text without control characters"


def yaml(content):
    return file("my.yaml", content)


@pytest.mark.parametrize(
    "row",
    [
        row("nothing", lambda folder: folder / "my.yaml", "{}: cannot be read (No such file or directory)"),
        row("a folder", lambda folder: folder, "{}: cannot be read (Is a directory)"),
        row("0 bytes", yaml(""), "{}: not a configuration: must be YAML or JSON with keys at top level"),
        row("a list", yaml("[1, 2]"), "{}: not a configuration: must be YAML or JSON with keys at top level"),
        row("UTF-16", yaml("title: x".encode("utf-16")), "{}: not UTF-8 text; save it as UTF-8"),
        row("2 MiB", yaml(" " * (2 << 20)), "{}: larger than 1 MiB: not a configuration"),
        row("a tab", yaml("plane:\n\theight: 3"), "{}: line 2: not YAML: found character '\\t' that cannot start any token"),
        row("a bracket that never closes", yaml("region: ["),
            "{}: line 1: not YAML: expected the node content, but found '<stream end>'"),
        row("a key twice", yaml("title: a\nresults: b\ntitle: c"),
            "{}: line 3: key 'title' is given again, first in line 1; keep one of them"),
        row("a key twice inside a section", yaml("plane:\n  y: 1\n  y: 2"),
            "{}: line 3: key 'y' is given again, first in line 2; keep one of them"),
        row("a key twice in JSON", yaml('{"title": "a", "title": "b"}'), "{}: key 'title' is given twice; keep one of them"),
        row("a key that YAML takes for true", yaml("on: 1"), "{}: line 1: key True is no text; write it in quotes"),
        row("a tag that would run code", yaml("title: !!python/object/apply:os.mkdir [ran]"),
            "{}: line 1: tag tag:yaml.org,2002:python/object/apply:os.mkdir is not accepted; write a plain value"),
        row("a template that would run code", yaml(RUNS),
            "{}: __use_yte__: templates run code and are not accepted; write the values out"),
        row("a billion laughs", yaml("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]"),
            "{}: line 2: *a repeats another value; write the value out"),
        row("5000 brackets", yaml("[" * 5000), "{}: nested too deeply for a configuration"),
        row("60 brackets that are no JSON", yaml("a: " + "[" * 60), "{}: nested too deeply for a configuration"),
        row("a day that is none", yaml("title: 2020-99-99"), "{}: not YAML: month must be in 1..12"),
        row("two documents", yaml("a: 1\n---\nb: 2"), "{}: line 2: not YAML: but found another document"),
    ],
)  # fmt: skip
def test_a_file(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(row, read_config, tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"expression__section_values": [7], "plane__sections": 2},
            "expression.section_values: got 1; must be one for each of plane.sections 2, in z order",
        ),
        ({"plane__height": 10**12}, "plane.height: got 1000000000000; must be at most 16777216"),
        ({"plane__height": -5}, "plane.height: got -5; must be at least 1"),
        ({"plane__height": "1,000"}, "plane.height: got '1,000'; must be a whole number"),
        ({"plane__pixel_size_um": "0,5"}, "plane.pixel_size_um: got '0,5'; must be a number"),
        ({"plane__sections": 10**6}, "plane.sections: got 1000000; must be at most 10000"),
        ({"plane__height": 10**6, "plane__width": 10**6},
         "generate.slab: 64 pixels make 732,421,875 jobs of 3 phases; Snakemake plans 200,000 at most, so it must be larger"),
        ({"region": [0, 0, 10**12, 10**12]},
         "region: got [0, 0, 1000000000000, 1000000000000]; must lie inside the plane [0, 0, 128, 192]"),
        ({"region": [-32, 0, 64, 64]}, "region: got [-32, 0, 64, 64]; must lie inside the plane [0, 0, 128, 192]"),
        ({"region": [0, 0, -64, 64]}, "region: got [0, 0, -64, 64]; must lie inside the plane [0, 0, 128, 192]"),
        ({"title": "a\nb"}, f"title: got 'a\\nb'; {TEXT}"),
        ({"title": "\x1b[2J"}, f"title: got '\\x1b[2J'; {TEXT}"),
        ({"title": "niarb \u202e"}, f"title: got 'niarb \\u202e'; {TEXT}"),
        ({"title": "\ud800"}, f"title: got '\\ud800'; {TEXT}"),
        ({"results": "a\nb"}, f"results: got 'a\\nb'; {TEXT}"),
        ({"results": "{slab}"}, "results: got '{slab}'; must hold neither { nor }, which Snakemake takes for wildcards"),
        ({"expression__source": "{x}.csv"},
         "expression.source: got '{x}.csv'; must hold neither { nor }, which Snakemake takes for wildcards"),
        ({"network__stains": [""]}, "network.stains.0: got ''; must not be empty"),
        ({"a\nb": 1}, "'a\\nb': no such key"),
    ],
)  # fmt: skip
def test_a_value(changes, said):
    with pytest.raises(UserError) as caught:
        parse_config(config_with(**changes))
    assert str(caught.value) == said


def test_check_reads_the_pathways(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path, attention={"pathways": "mine.gmt"})
    (tmp_path / "mine.gmt").write_text("MINE\tx\tTh\n")
    assert main(["check", str(project.folder / "config.yaml")]) == 1
    assert capsys.readouterr().err.startswith("error: mine.gmt, line 1: ")


def test_check_says_it_without_running_anything(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = yaml(RUNS)(tmp_path)
    assert main(["check", str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {path}: __use_yte__: templates run code")
    assert not (tmp_path / "ran").exists()
