"""What Snakemake itself costs: the plan of many jobs, and the overhead of one job.

    python benchmarks/workflow_cost.py plan [jobs ...]  # wall time and memory of `snakemake -n`
    python benchmarks/workflow_cost.py job              # seconds per job beside the job's own
    python benchmarks/workflow_cost.py slurm            # the same on Slurm, which must be up

A slab makes four jobs: three phases and stitching. Overheads are means over the jobs of a project
of two slabs, run one after the other, in this one run; compare them with each other, not with
those of another machine. `python tests/slurm/cluster.py up` brings up a Slurm.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from small_project import CHANGES, SLIDE, SmallProject  # noqa: E402
from workflow_project import config_with, planned  # noqa: E402

SLAB, PHASES = 1024, 3
POLL = ("--slurm-init-seconds-before-status-checks", "1")


def plan(jobs: int, folder: Path) -> str:
    """Time and memory of the plan of about `jobs` slab jobs on a square plane."""
    edge = math.isqrt(jobs // (PHASES + 1))
    changes = dict.fromkeys(("plane__height", "plane__width"), edge * SLAB)
    steps = {"generate__steps": 15, "generate__phases": PHASES, "generate__slab": SLAB}
    values = config_with(**CHANGES | changes | steps)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "snakemake", "-n", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--configfile", str(folder / "config.yaml")]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, printed
    counts = planned(printed)
    slab_jobs = sum(n for rule, n in counts.items() if rule.startswith(("generate", "stitch")))
    return (
        f"{slab_jobs:6d} slab jobs: {time.perf_counter() - start:6.1f} s wall, "
        f"{usage.ru_utime + usage.ru_stime:6.1f} s CPU, {usage.ru_maxrss / 1024:5.0f} MiB"
    )


def own_seconds(folder: Path) -> float:
    """Seconds that the jobs of a project spent in their scripts."""
    tables = folder.glob("out/benchmarks/*/*.tsv")
    rows = [row for table in tables for row in csv.DictReader(table.open(), delimiter="\t")]
    return sum(float(row["s"]) for row in rows)


def overhead(folder: Path, *arguments: str) -> str:
    """Run the small project one job after the other; seconds per job that are not its script's."""
    project = SmallProject.new(folder)
    start = time.perf_counter()
    printed = project.run(*arguments, SLIDE)
    wall, own, jobs = time.perf_counter() - start, own_seconds(folder), planned(printed).total()
    beside = (wall - own) / jobs
    return f"{jobs} jobs: {wall:.1f} s, {own:.1f} s in scripts, {beside:.2f} s a job beside"


def in_slurm_jobs(project: Path) -> str:
    """Seconds per Slurm job, from its start to its end, that are not its script's."""
    text = subprocess.check_output(["scontrol", "show", "job", "--oneliner"], text=True)
    mine = [line for line in text.splitlines() if f"WorkDir={project} " in line]
    stamps = [re.findall(r"(?:Start|End)Time=(\S+)", line) for line in mine]
    spent = sum(_seconds(end) - _seconds(start) for start, end in stamps)
    own = own_seconds(project)
    return f"{len(mine)} Slurm jobs: {(spent - own) / len(mine):.1f} s a job beside its script"


def _seconds(stamp: str) -> float:
    return time.mktime(time.strptime(stamp, "%Y-%m-%dT%H:%M:%S"))


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description="what Snakemake itself costs")
    parser.add_argument("part", choices=("plan", "job", "slurm"))
    parser.add_argument("jobs", nargs="*", type=int, help="of the plans")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.part == "plan":
            for jobs in given.jobs or (1000, 5000, 20000):
                print(plan(jobs, Path(folder)), flush=True)
        elif given.part == "job":
            print(overhead(Path(folder), "--cores", "1"))
        else:
            print(overhead(Path(folder), "--profile", str(ROOT / "slurm"), "--jobs", "1", *POLL))
            print(in_slurm_jobs(Path(folder)))


if __name__ == "__main__":
    main()
