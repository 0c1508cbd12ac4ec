"""A tiny project in a folder of its own, run by the real Snakemake."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
import yaml

from teramind.config import Config, flatten, parse_config
from teramind.network import Network, NetworkSpec, save_network

ROOT = Path(__file__).parents[1]
PANEL = ("Gad1", "Slc17a7", "Th")
SIZE = (128, 192)
"""Pixels: 2 x 3 slabs of 64."""

CONFIG: dict[str, Any] = {
    "title": "Tiny",
    "results": "out",
    "expression": {
        "kind": "molecules",
        "source": "molecules.csv",
        "section": "section",
        "units": "pixel",
    },
    "plane": {
        "height": SIZE[0],
        "width": SIZE[1],
        "sections": 2,
        "pixel_size_um": 0.5,
        "section_spacing_um": 10,
    },
    "network": {"checkpoint": "network.safetensors", "patch": 32, "sections": 4},
    "generate": {"slab": 64, "steps": 3, "phases": 3},
}


def config_with(**changes: Any) -> dict[str, Any]:
    """The tiny config with some keys changed: `generate__slab=100`; None leaves one out."""
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    replaced = tuple(f"{key}." for key in changes)
    kept = {k: v for k, v in flatten(CONFIG).items() if not k.startswith(replaced)}
    made: dict[str, Any] = {}
    for key, value in (kept | changes).items():
        if value is not None:
            *path, last = key.split(".")
            section = made
            for name in path:
                section = section.setdefault(name, {})
            section[last] = value
    return made


def molecules(sections: int = 2) -> pd.DataFrame:
    """Molecules of three genes all over the plane but its upper left corner."""
    rng = np.random.default_rng(1)
    n = 4000
    table = pd.DataFrame(
        {
            "gene": rng.choice(PANEL, n),
            "x": rng.uniform(0, SIZE[1], n).round(2),
            "y": rng.uniform(0, SIZE[0], n).round(2),
            "section": rng.integers(0, sections, n),
        }
    )
    return table[(table.x >= 64) | (table.y >= 32)]


def write_network(path: Path, **changes: Any) -> None:
    """A checkpoint with random weights."""
    spec: dict[str, Any] = {
        "patch": 32,
        "sections": 4,
        "stains": ("DAPI", "PolyT"),
        "genes": len(PANEL),
        "base": 2,
        "embed": 8,
        "panel": PANEL,
        "pixel_size_um": 0.5,
        "section_spacing_um": 10.0,
    }
    torch.manual_seed(0)
    save_network(Network(NetworkSpec(**spec | changes)), path)


class Project:
    """A folder with molecules, a checkpoint and a config."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        molecules().to_csv(folder / "molecules.csv", index=False)
        write_network(folder / "network.safetensors")
        self.configure(**changes)

    def configure(self, **changes: Any) -> None:
        """Write the config with some keys changed."""
        self.values = config_with(**changes)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.values))

    def copy(self, folder: Path) -> Self:
        """The same project, with all that was made so far, elsewhere."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        other = object.__new__(type(self))
        other.folder, other.values = folder, self.values
        return other

    @property
    def config(self) -> Config:
        """The validated config."""
        return parse_config(self.values)

    @property
    def results(self) -> Path:
        """The results folder."""
        return self.folder / self.values["results"]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Snakemake as a user would, outside the repository."""
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        command += ["--directory", str(self.folder), "--configfile", "config.yaml", "--cores", "2"]
        return subprocess.Popen(
            [*command, *arguments],
            cwd=self.folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> str:
        """Run to a good end; return what was printed."""
        status, printed = self.attempt(*arguments)
        assert status == 0, printed
        return printed

    def attempt(self, *arguments: str) -> tuple[int, str]:
        """Run; return exit status and what was printed."""
        process = self.start(*arguments)
        printed, _ = process.communicate(timeout=1800)
        return process.returncode, printed

    def fail(self, *arguments: str) -> str:
        """Run into a mistake of the user's: exactly one line says so, and nothing looks broken."""
        status, printed = self.attempt(*arguments)
        lines = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert status != 0, printed
        assert len(lines) == 1, printed
        assert "Traceback" not in printed, printed
        assert not self.leftovers(), self.leftovers()
        return lines[0]

    def leftovers(self) -> list[Path]:
        """Temporary files: what was half-written when a job ended."""
        return [p for p in self.results.rglob(".*") if p.name != ".snakemake_timestamp"]

    def files(self, *patterns: str) -> dict[str, bytes]:
        """Relative path -> bytes of the result files that match."""
        found = [p for pattern in patterns for p in self.results.glob(pattern) if p.is_file()]
        return {str(p.relative_to(self.results)): p.read_bytes() for p in found}


def planned(printed: str) -> Counter[str]:
    """Jobs per rule in Snakemake's table of job counts; empty when there is nothing to do."""
    table = printed.partition("Job stats:")[2].partition("total")[0]
    return Counter({name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.M)})


def jobs_of(config: Config) -> Counter[str]:
    """Jobs per rule that the geometry asks for."""
    layout = config.layout()
    slabs = {f"generate_p{p:03d}": len(list(layout.slabs(p))) for p in range(layout.phases)}
    sections = layout.windows.generated
    single = dict.fromkeys(("provenance", "bin_expression", "create_volume", "report", "all"), 1)
    stitch = slabs[f"generate_p{layout.phases - 1:03d}"]
    others = {"stitch": stitch, "pyramid": sections, "export_wsi": sections}
    return Counter(single | slabs | others)
