"""Conda environments: pinned like CI, complete for their scripts; rules say all they should."""

import re
import subprocess
import sys
from functools import cache
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from workflow_project import ROOT

ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
SCRIPTS = sorted((ROOT / "workflow/scripts").glob("*.py"))
RULES = sorted((ROOT / "workflow/rules").glob("*.smk"))
OTHER_NAMES = {"pytorch-cpu": "torch", "pytorch-gpu": "torch", "matplotlib-base": "matplotlib"}
"""conda-forge's name -> PyPI's, where they differ."""

WHERE_ASKED = {
    "evaluate": ["import torch"],  # evaluation.frechet
    # evaluate.nuclei
    "evaluate_section": [
        "import skimage.feature",
        "import skimage.filters",
        "import skimage.segmentation",
    ],
    # attention.regions, compressed, and the network's genes
    "create_attention": ["import imagecodecs", "from teramind.network.spec import read_spec"],
    "attention": ["import imagecodecs", "import matplotlib.path"],  # regions: image or polygons
    "train": ["import matplotlib.figure", "import matplotlib.image"],  # training.watch
    "report": ["import pandas"],  # report.measures
}
"""Script -> imports inside the package's functions, which a script's own lines do not reach."""

DIRECTIVES = ("log", "benchmark", "conda", "threads", "resources", "message", "script")

IMPORT_ONLY = """
import sys
from importlib.machinery import PathFinder

blocked, lines = set(sys.argv[1].split(",")), sys.argv[2:]


class Others(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else super().find_spec(name, path, target)


sys.meta_path = [Others if finder is PathFinder else finder for finder in sys.meta_path]
for line in lines:
    exec(line)
"""


def pins(path):
    """PyPI name -> pinned version of an environment, without Python."""
    found = dict(entry.split("=") for entry in yaml.safe_load(path.read_text())["dependencies"])
    assert found.pop("python") == "3.11"
    return {OTHER_NAMES.get(name, name): version for name, version in found.items()}


def closure(names):
    """Distributions that come with the named ones."""
    todo, found = [canonicalize_name(name) for name in names], set()
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                todo.append(canonicalize_name(needed.name))
    return found


@cache
def owners():
    """Installed top-level module -> the distributions that hold it."""
    return metadata.packages_distributions()


def missing_beside(names):
    """Installed top-level modules that an environment of the named distributions lacks."""
    present = closure(names) | {"teramind"}
    return {
        module
        for module, owned_by in owners().items()
        if not present & {canonicalize_name(name) for name in owned_by}
    }


def rules():
    """(rule, its directives -> text) of all rule files; generated rules have the name generate."""
    for path in RULES:
        for text in re.split(r"^ *rule\b", path.read_text(), flags=re.M)[1:]:
            name = re.match(r" ?(\w*)", text)[1] or re.search(r'name:\s+f?"([a-z]+)', text)[1]
            indent = re.search(r"^( +)log:", text, re.M)[1]
            parts = re.split(rf"^{indent}(\w+):", text, flags=re.M)
            yield name, dict(zip(parts[1::2], parts[2::2], strict=True))


RULE_PARTS = dict(rules())


def environments_of(script):
    """The environments of the rule that runs a script: two where it may use a GPU."""
    directives = {
        parts["conda"].strip()
        for parts in RULE_PARTS.values()
        if f"scripts/{script.name}" in parts["script"]
    }
    (directive,) = directives
    if directive.startswith("network_environment("):
        return [ROOT / "envs/network.yaml", ROOT / "envs/network_cuda.yaml"]
    return [ROOT / re.search(r"envs/\w+\.yaml", directive)[0]]


def imports_of(script):
    """Import statements of a script, wherever they stand."""
    return [
        line.strip()
        for line in script.read_text().splitlines()
        if re.match(r"\s*(from \S+ import|import) ", line)
    ]


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_pins_are_the_versions_of_the_constraints(path):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    constraints = dict(line.split("==") for line in lines if "==" in line)
    assert {name: constraints[name] for name in pins(path)} == pins(path)


def test_every_environment_has_a_rule_and_every_script_an_environment():
    assert {path for script in SCRIPTS for path in environments_of(script)} == set(ENVIRONMENTS)


def test_the_network_environments_differ_in_the_build_of_torch_alone():
    cpu, cuda = (
        set(yaml.safe_load((ROOT / "envs" / name).read_text())["dependencies"])
        for name in ("network.yaml", "network_cuda.yaml")
    )
    version = pins(ROOT / "envs/network.yaml")["torch"]
    assert cpu ^ cuda == {f"pytorch-cpu={version}", f"pytorch-gpu={version}"}


@pytest.mark.parametrize("name", sorted(RULE_PARTS))
def test_a_rule_says_what_it_needs_and_does(name):
    parts = RULE_PARTS[name]
    assert [directive for directive in DIRECTIVES if directive not in parts] == []
    assert "mem_mb=" in parts["resources"]
    assert "runtime=" in parts["resources"]


def lines_of(script):
    """What a script imports, after a line that says which script it is."""
    lines = imports_of(script) + WHERE_ASKED.get(script.stem, [])
    return [f"print({script.name!r}, flush=True)", *lines]


@pytest.mark.parametrize(
    "path", sorted({environments_of(script)[0] for script in SCRIPTS}), ids=lambda path: path.stem
)
def test_the_scripts_of_an_environment_import_with_it_alone(path):
    blocked = ",".join(missing_beside(pins(path)))
    scripts = [script for script in SCRIPTS if path == environments_of(script)[0]]
    lines = [line for script in scripts for line in lines_of(script)]
    command = [sys.executable, "-c", IMPORT_ONLY, blocked, *lines]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, (run.stdout.splitlines()[-1], run.stderr.splitlines()[-1])
