"""One line on the terminal after every finished job: jobs, voxels per second, time left.

Snakemake's own log says how many jobs are done; how much each one weighs only the layout knows.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from teramind.geometry import Layout, Slab
from teramind.units import amount, duration


class ProgressHandler(logging.Handler):
    """Listens to Snakemake's log records.

    Args:
        layout: gives the voxels and steps behind a generate job.
        channels: stains.
    """

    def __init__(self, layout: Layout, channels: int) -> None:
        super().__init__()
        self.layout, self.channels = layout, channels
        self.running: dict[int, float] = {}
        self.started: float | None = None
        self.done = self.total = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of jobs that start and end."""
        event = str(getattr(record, "event", ""))
        if event == "run_info":
            self._plan(getattr(record, "stats", None) or {})
        elif event == "job_info" and str(getattr(record, "rule_name", "")).startswith("generate_p"):
            self.started = self.started or time.monotonic()
            self.running[_number(record)] = self._weight(record)
        elif event == "job_finished":
            self.done += self.running.pop(_number(record), 0.0)
        elif event == "progress":
            self._print(int(getattr(record, "done", 0)), int(getattr(record, "total", 0)))

    def _plan(self, counts: dict[str, int]) -> None:
        """Voxels that the planned generate jobs amount to, all steps counted as one."""
        jobs = {name: n for name, n in counts.items() if name.startswith("generate_p")}
        for name, number in jobs.items():
            phase = int(name.removeprefix("generate_p"))
            slabs = list(self.layout.slabs(phase))
            voxels = sum(self._voxels(slab, phase) for slab in slabs)
            self.total += voxels * number / len(slabs)

    def _weight(self, record: logging.LogRecord) -> float:
        phase = int(record.rule_name.removeprefix("generate_p"))  # type: ignore[attr-defined]
        return self._voxels(Slab.parse(dict(record.wildcards)["slab"]), phase)  # type: ignore[attr-defined]

    def _voxels(self, slab: Slab, phase: int) -> float:
        """Voxels of a slab's core times the share of the steps that `phase` takes."""
        core = self.layout.core(slab, phase)
        share = len(self.layout.phase_steps(phase)) / self.layout.steps
        sections = len(self.layout.windows_of(slab)) * self.layout.windows.depth
        return core.area * self.channels * sections * share

    def _print(self, jobs: int, all_jobs: int) -> None:
        parts = [f"{jobs} of {all_jobs} jobs"]
        if self.started and self.done:
            rate = self.done / (time.monotonic() - self.started)
            parts.append(f"{amount(rate)}voxels/s")
            if self.total > self.done:
                parts.append(f"{duration((self.total - self.done) / rate)} left")
        print("progress: " + ", ".join(parts), file=sys.stderr, flush=True)


def show_progress(layout: Layout, *, channels: int) -> None:
    """Attach to the logger of the Snakemake process that runs the workflow."""
    logger = logging.getLogger("snakemake.logging")
    if not any(isinstance(handler, ProgressHandler) for handler in logger.handlers):
        logger.addHandler(ProgressHandler(layout, channels))


def _number(record: logging.LogRecord) -> int:
    found: Any = getattr(record, "jobid", None)
    return int(found if found is not None else getattr(record, "job_id", -1))
