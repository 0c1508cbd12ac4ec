"""When each slab's job would run on so many workers, and how many states lie on the disk then."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from teramind.geometry import EMPTY, Layout, Slab

Job = tuple[Slab, int]
"""A slab and a phase; the phase after the last one is stitching."""


@dataclass(frozen=True)
class Course:
    """How a run goes.

    Attributes:
        seconds: until its last stitch.
        worked: seconds of its jobs together.
        peak_bytes: most bytes of states at a time.
    """

    seconds: float
    worked: float
    peak_bytes: int


def simulate(
    layout: Layout,
    *,
    workers: int,
    windows: int,
    seconds: Callable[[Job], float],
    state_bytes: Callable[[Job], int],
) -> Course:
    """Run the jobs in the workflow's order, each as soon as it can; see `Layout.priority`.

    Args:
        layout: slabs, phases and who reads whom.
        workers: jobs that run at a time.
        windows: how many windows to run, from the first.
        seconds: of a job.
        state_bytes: of the state that a job leaves.
    """
    reads = {job: _reads(layout, job) for job in _jobs(layout, windows)}
    read_by: dict[Job, list[Job]] = {job: [] for job in reads}
    for job, sources in reads.items():
        for source in sources:
            read_by[source].append(job)
    lacking = {job: len(sources) for job, sources in reads.items()}
    readers = {job: len(jobs) for job, jobs in read_by.items()}
    ready = [(_turn(layout, job), job) for job, n in lacking.items() if n == 0]
    heapq.heapify(ready)
    running: list[tuple[float, Job]] = []
    now, worked, held, peak = 0.0, 0.0, 0, 0
    while ready or running:
        while ready and len(running) < workers:
            job = heapq.heappop(ready)[1]
            worked += (taken := seconds(job))
            heapq.heappush(running, (now + taken, job))
        now, done = heapq.heappop(running)
        if done[1] < layout.phases:
            held += state_bytes(done)
            peak = max(peak, held)
        for source in reads[done]:
            readers[source] -= 1
            held -= 0 if readers[source] else state_bytes(source)
        for reader in read_by[done]:
            lacking[reader] -= 1
            if not lacking[reader]:
                heapq.heappush(ready, (_turn(layout, reader), reader))
    return Course(now, worked, peak)


def _turn(layout: Layout, job: Job) -> tuple[int, int]:
    """Sorts jobs; of equal ones the job that frees states runs last, for then most lie there."""
    return -layout.priority(*job), job[1]


def _jobs(layout: Layout, windows: int) -> list[Job]:
    found = [
        (slab, phase)
        for phase in range(layout.phases)
        for slab in layout.slabs(phase)
        if slab.window < windows
    ]
    last = layout.phases - 1
    return found + [(slab, layout.phases) for slab, phase in found if phase == last]


def _reads(layout: Layout, job: Job) -> list[Job]:
    """Jobs whose states a job reads."""
    slab, phase = job
    if phase == 0:
        return []
    if phase < layout.phases:
        return [(source, phase - 1) for source in layout.sources(slab, phase)]
    last = phase - 1
    near = (slab, slab._replace(col=slab.col + 1), slab._replace(row=slab.row + 1))
    return [(other, last) for other in near if layout.core(other, last) != EMPTY]
