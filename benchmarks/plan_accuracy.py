"""What `teramind plan` says against what real runs take: seven runs of different sizes.

    python benchmarks/plan_accuracy.py [runs, by default all]

Every run is the real Snakemake on one core, from molecules to the last state, with the bundled
network's sizes. Next to each run a few patches are timed as the plan times them; time is CPU time,
which other work on the machine hardly moves, of the slab jobs. Memory is the largest slab job's
peak, disk the most that the states took at one time, looked at all the while.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from teramind.config import parse_config
from teramind.network import load_network
from teramind.plan.assume import assume
from teramind.plan.estimate import count_work, estimate
from teramind.plan.times import JobTimes
from teramind.units import MEBI

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "resources" / "phantom.safetensors"
RUNS = [
    {"height": 128, "width": 128, "slab": 128, "steps": 4, "phases": 1},
    {"height": 256, "width": 256, "slab": 256, "steps": 4, "phases": 1},
    {"height": 128, "width": 256, "slab": 128, "steps": 4, "phases": 2},
    {"height": 256, "width": 256, "slab": 128, "steps": 3, "phases": 1},
    {"height": 512, "width": 512, "slab": 512, "steps": 2, "phases": 1},
    {"height": 256, "width": 512, "slab": 256, "steps": 3, "phases": 3},
    {"height": 256, "width": 1024, "slab": 1024, "steps": 2, "phases": 2},
]

NOTE_USE = """
import atexit, json, os, resource, sys
def note():
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open(os.environ["NOTES"], "a") as file:
        seconds = used.ru_utime + used.ru_stime
        file.write(json.dumps([sys.argv[:1], seconds, used.ru_maxrss]) + "\\n")
atexit.register(note)
"""
"""A `sitecustomize` that notes every Python process's CPU seconds and peak KiB as it ends."""


def write_project(folder: Path, run: dict[str, int]) -> dict[str, Any]:
    """Molecules and config of one run."""
    random, spec = np.random.default_rng(0), load_network(CHECKPOINT).spec
    n = run["height"] * run["width"] // 8
    table = {"gene": random.choice(spec.panel, n), "section": random.integers(0, 2, n)}
    table |= {"x": random.uniform(0, run["width"], n), "y": random.uniform(0, run["height"], n)}
    pd.DataFrame(table).to_csv(folder / "molecules.csv", index=False)
    values = {
        "results": str(folder / "out"),
        "expression": {
            "kind": "molecules",
            "source": str(folder / "molecules.csv"),
            "section": "section",
            "units": "pixel",
        },
        "plane": {
            "height": run["height"],
            "width": run["width"],
            "sections": 2,
            "pixel_size_um": spec.pixel_size_um,
            "section_spacing_um": 10,
        },
        "network": {"checkpoint": str(CHECKPOINT), "patch": 32, "sections": 4},
        "generate": {key: run[key] for key in ("slab", "steps", "phases")},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return values


class Watch(threading.Thread):
    """Looks at a folder's size until told to stop."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.peak, self.ended = folder, 0, threading.Event()

    def run(self) -> None:
        """Keep the largest size; files may vanish while they are counted."""
        while not self.ended.wait(0.02):
            held = 0
            for path in self.folder.glob("p*/w*.safetensors"):
                try:
                    held += path.stat().st_size
                except FileNotFoundError:
                    continue
            self.peak = max(self.peak, held)


def measure(folder: Path, targets: list[str]) -> dict[str, float]:
    """Run Snakemake for the receipts; what its slab jobs took."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(NOTE_USE)
    notes, watch = folder / "notes.jsonl", Watch(folder / "out" / "work")
    paths = os.pathsep.join([str(folder / "site"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": paths, "NOTES": str(notes), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--configfile", str(folder / "config.yaml"), "--directory", str(folder)]
    watch.start()
    start = time.perf_counter()
    subprocess.run(
        [*command, "--cores", "1", "--quiet", "all", "--", *targets],
        env=environment,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    wall = time.perf_counter() - start
    watch.ended.set()
    watch.join()
    jobs = [json.loads(line) for line in notes.read_text().splitlines()]
    slabs = [(cpu, peak) for argv, cpu, peak in jobs if "generate" in argv[0]]
    return {
        "jobs": len(slabs),
        "seconds": sum(cpu for cpu, _ in slabs),
        "memory": max(peak for _, peak in slabs) / 1024,
        "disk": watch.peak / 1024,
        "wall": wall,
    }


def main() -> None:
    """Run them all and print predicted over measured."""
    parser = argparse.ArgumentParser(description="what the plan says against real runs")
    parser.add_argument("runs", nargs="?", type=int, default=len(RUNS), help="the first so many")
    asked = parser.parse_args().runs
    ratios = []
    print("run                          jobs  time  CPU s  memory    MiB    disk    KiB   load")
    for run in RUNS[:asked]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            config = parse_config(write_project(folder, run))
            layout = config.layout()
            last = layout.phases - 1
            targets = [f"{folder}/out/volume/receipts/{slab}.json" for slab in layout.slabs(last)]
            given, _ = assume(config, hardware=None, workers=1)
            plan = estimate(config, given)
            found = measure(folder, targets)
        phases = [work.stacked(layout.stack) for work in count_work(config, given)]
        seconds = JobTimes(config, given, phases).network()
        ratio = {
            "time": seconds / found["seconds"],
            "memory": plan.job_bytes / MEBI / found["memory"],
            "disk": plan.state_peak_bytes / 1024 / found["disk"],
        }
        ratios.append(ratio)
        words = " ".join(f"{key[0]}{value}" for key, value in run.items())
        print(
            f"{words:<28} {found['jobs']:4} {ratio['time']:5.2f} {found['seconds']:6.1f} "
            f"{ratio['memory']:7.3f} {found['memory']:6.0f} {ratio['disk']:7.3f} "
            f"{found['disk']:6.0f} {os.getloadavg()[0]:6.1f}",
            flush=True,
        )
    worst = {key: max(abs(r[key] - 1) for r in ratios) for key in ratios[0]}
    print(json.dumps({f"worst_{key}_error": round(value, 3) for key, value in worst.items()}))


if __name__ == "__main__":
    main()
