"""The table of rooms in ARCHITECTURE.md is that of the code."""

import ast
import re

from workflow_project import ROOT

PACKAGE = ROOT / "teramind"


def rooms():
    """Room, a folder or file of the package, -> its row in the table, from the top."""
    lines = (ROOT / "ARCHITECTURE.md").read_text().splitlines()
    rows = [line.split("|")[1] for line in lines if line.startswith("| `")]
    return {
        name.removeprefix("teramind/").rstrip("/").removesuffix(".py"): number
        for number, row in enumerate(rows)
        for name in re.findall("`(.+?)`", row)
    }


def own_room(path):
    """The room that a file of the package belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """Rooms that a file imports from, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("teramind."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.module == "teramind":
            yield from (name.name for name in node.names)


def test_every_room_is_in_the_table():
    there = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    assert not there - set(rooms())


def test_imports_point_downwards():
    place = rooms()
    upwards = [
        f"{path.relative_to(PACKAGE)} imports {room}"
        for path in PACKAGE.rglob("*.py")
        for room in imported(path)
        if place.get(room, len(place)) < place.get(own_room(path), 0)
    ]
    assert not upwards
