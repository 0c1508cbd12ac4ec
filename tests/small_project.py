"""A project of two slabs, two phases and one section: all kinds of jobs in the least time."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from workflow_project import Project, planned, write_network

CHANGES = {
    "expression__section": None,
    "expression__outside": "skip",
    "plane__height": 64,
    "plane__width": 128,
    "plane__sections": 1,
    "network__sections": 1,
    "generate__steps": 2,
    "generate__phases": 2,
}
SLIDE = "out/wsi/section_000.ome.tif"
"""The target that needs every job but the report."""

TARGETS = (
    SLIDE,
    "out/volume/pyramid/000.json",
    "out/volume/receipts/w00_r00_c00.json",
    "out/volume/receipts/w00_r00_c01.json",
)
"""What the rule `all` asks for, but the report."""

VOLUME = ("volume/volume.zarr/**/*", "volume/receipts/*", "volume/pyramid/*", "wsi/*")

STAGES = {
    "generate": ("work", "volume/volume.zarr/0/c", "volume/receipts", "volume/pyramid", "wsi"),
    "stitch": ("volume/volume.zarr/0/c", "volume/receipts", "volume/pyramid", "wsi"),
    "export_wsi": ("wsi",),
}
"""Script -> the folders of results that it and what follows make."""


class SmallProject(Project):
    """A project that can be put back to before a stage, disturbed, and brought to its end."""

    @classmethod
    def new(cls, folder: Path) -> SmallProject:
        """Molecules, checkpoint and config; nothing made yet."""
        folder.mkdir(parents=True, exist_ok=True)
        project = cls(folder, **CHANGES)
        write_network(folder / "network.safetensors", sections=1)
        return project

    def before(self, stage: str, folder: Path) -> SmallProject:
        """A copy of this finished project from which a stage and what follows are missing."""
        copy = self.copy(folder)
        for name in STAGES[stage]:
            shutil.rmtree(copy.results / name)
        return copy

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Snakemake towards the slide; states are kept."""
        return self.start("--notemp", *arguments, *TARGETS)

    def finish(self) -> int:
        """Run as a user would after a fault, to a good end; return how many jobs ran."""
        self.run("--unlock")
        return planned(self.run("--notemp", *TARGETS)).total()

    def volume(self) -> dict[str, bytes]:
        """All bytes of volume, records and slides, without what killed jobs left half-written."""
        return {
            name: content
            for name, content in self.files(*VOLUME).items()
            if not Path(name).name.startswith(".") and not name.endswith(".partial")
        }

    def seconds(self, script: str) -> float:
        """How long the slowest job of a script took."""
        tables = self.results.glob(f"benchmarks/{script}*/*.tsv")
        rows = [row for table in tables for row in csv.DictReader(table.open(), delimiter="\t")]
        return max(float(row["s"]) for row in rows)


def jobs_of(process: subprocess.Popen[str], script: str = "") -> list[psutil.Process]:
    """Processes below Snakemake that run a script, or any script."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            words = child.cmdline()  # empty once it has ended
        except psutil.Error:
            continue
        python = words and Path(words[0]).name.startswith("python")
        if python and words[-1].endswith(f"{script}.py"):
            found.append(child)
    return found


def nth_job(process: subprocess.Popen[str], script: str, number: int) -> psutil.Process:
    """Wait for the `number`th job of a script."""
    seen: dict[int, psutil.Process] = {}
    while len(seen) < number:
        assert process.poll() is None, process.communicate()[0]
        seen |= {job.pid: job for job in jobs_of(process, script)}
        time.sleep(0.02)
    return list(seen.values())[number - 1]


def end(process: subprocess.Popen[str]) -> str:
    """Wait for Snakemake to end; what it printed."""
    return process.communicate(timeout=1200)[0]


def kill(process: subprocess.Popen[str]) -> str:
    """SIGKILL Snakemake and all its jobs; what was printed."""
    parent = psutil.Process(process.pid)
    family = [parent, *parent.children(recursive=True)]
    for member in family:
        member.suspend()
    for member in family:
        member.kill()
    return process.communicate()[0]


def kill_alone(process: subprocess.Popen[str]) -> None:
    """SIGKILL Snakemake; jobs that run go on, as they do on a cluster. Wait for them."""
    survivors = jobs_of(process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(survivors, timeout=600)


def site(folder: Path, code: str) -> str:
    """PYTHONPATH with a module that every Python process runs as it starts."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


assert sys.platform == "linux", "processes are found in /proc"
