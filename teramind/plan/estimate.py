"""The plan of a run: what it will compute, hold, write and take, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from teramind.config import Config
from teramind.engine.solver import SOLVERS
from teramind.plan import rates
from teramind.plan.assume import Assumptions
from teramind.plan.jobs import files_left, jobs_per_rule
from teramind.plan.memory import job_bytes, process_bytes, workspace_bytes
from teramind.plan.simulate import simulate
from teramind.plan.times import JobTimes, StateBytes
from teramind.plan.work import PhaseWork, drawn_slabs, phase_work, wanted_work
from teramind.units import MEBI
from teramind.volume import VolumeLayout
from teramind.volume.planned import planned_volume

SIMULATED = 2
"""Stacks of windows whose course is followed; those after them repeat it."""


@dataclass(frozen=True)
class Plan:
    """Numbers of a run; bytes, seconds and counts, ready for JSON.

    Attributes:
        slab: edge of a slab in pixels.
        phases: number of phases.
        steps: number of steps.
        windows: z-windows.
        stack: z-windows of a slab.
        slabs: slabs of one stack.
        voxels: of the volume, all stains.
        tissue_fraction: share of the region's patches that is drawn.
        tissue_known: whether that was read from the raster or assumed.
        frame_overhead: patches computed over patches wanted.
        encoder_redundancy: encoder passes over decoder passes.
        petaflop: 1e15 operations of the network, frames included.
        jobs: jobs per rule.
        dry_run_seconds: until Snakemake has the graph of jobs.
        dry_run_bytes: memory of that.
        job_seconds: of the largest slab job.
        network_hours: of all slab jobs together, start-up included.
        other_hours: of stitching, pyramids and slides together.
        wall_hours: until the last slide, on `workers`.
        workers: jobs at a time.
        startup_share: of the slab jobs' time.
        job_bytes: memory of the largest slab job.
        state_bytes: payload of all states of all phases ever written.
        state_peak_bytes: payload of the states on the disk at one time, at most.
        result_bytes: volume with its pyramid and slides, not compressed; background takes none.
        files: files left by folder.
        device: the machine.
        source: where its numbers are from.
    """

    slab: int
    phases: int
    steps: int
    windows: int
    stack: int
    slabs: int
    voxels: int
    tissue_fraction: float
    tissue_known: bool
    frame_overhead: float
    encoder_redundancy: float
    petaflop: float
    jobs: dict[str, int]
    dry_run_seconds: float
    dry_run_bytes: int
    job_seconds: float
    network_hours: float
    other_hours: float
    wall_hours: float
    workers: int
    startup_share: float
    job_bytes: int
    state_bytes: int
    state_peak_bytes: int
    result_bytes: int
    files: dict[str, int]
    device: str
    source: str


def estimate(config: Config, given: Assumptions) -> Plan:
    """Plan a run of `config`.

    Raises:
        UserError: when nothing is known of the machine's speed.
    """
    return estimate_counted(config, given, count_work(config, given))


def count_work(config: Config, given: Assumptions) -> list[PhaseWork]:
    """The work of every phase; the same however many windows a slab holds."""
    layout = config.layout()
    return [phase_work(layout, phase, given.wanted) for phase in range(layout.phases)]


def estimate_counted(config: Config, given: Assumptions, counted: Sequence[PhaseWork]) -> Plan:
    """Plan a run whose work was counted before; see `estimate`."""
    layout, spec, hardware = config.layout(), given.spec, given.hardware
    phases = [work.stacked(layout.stack) for work in counted]
    decoded = sum(int(work.decoded.sum()) for work in phases)
    encoded = sum(int(work.encoded.sum()) for work in phases)
    times = JobTimes(config, given, phases)
    states = StateBytes(config, spec)
    course = simulate(
        layout,
        workers=given.workers,
        windows=min(SIMULATED * layout.stack, len(layout.windows)),
        seconds=times.seconds,
        state_bytes=states,
    )
    arrays = job_bytes(
        layout,
        spec,
        given.cost,
        planes=SOLVERS[config.generate.solver].planes,
        genes=given.genes,
        workspace=workspace_bytes(hardware, given.cost),
    )
    network, other = times.network(), times.others()
    drawn = drawn_slabs(layout, given.wanted)
    jobs = jobs_per_rule(config)
    volume = planned_volume(config)
    voxels = int(np.prod(volume.shape))
    wanted = wanted_work(layout, given.wanted)
    everything = wanted_work(layout, None)
    fraction = wanted / everything
    return Plan(
        slab=layout.slab,
        phases=layout.phases,
        steps=layout.steps,
        windows=len(layout.windows),
        stack=layout.stack,
        slabs=phases[-1].pixels[0].size,
        voxels=voxels,
        tissue_fraction=fraction,
        tissue_known=given.wanted is not None,
        frame_overhead=decoded / max(wanted, 1),
        encoder_redundancy=encoded / max(decoded, 1),
        petaflop=given.cost.flops(encoded=encoded, decoded=decoded) / 1e15,
        jobs=dict(jobs),
        dry_run_seconds=rates.SECONDS_PER_JOB * jobs.total(),
        dry_run_bytes=_dry_run_bytes(jobs.total()),
        job_seconds=times.longest(),
        network_hours=network / 3600,
        other_hours=other / 3600,
        wall_hours=times.wall(course) / 3600,
        workers=given.workers,
        startup_share=times.startup * sum(w.pixels.size for w in phases) / max(network, 1e-9),
        job_bytes=process_bytes(hardware, given.cost) + arrays,
        state_bytes=sum(states.of(n, int(work.pixels.sum())) for n, work in enumerate(phases)),
        state_peak_bytes=course.peak_bytes,
        result_bytes=int(2 * _pyramid_voxels(volume) * fraction),
        files=dict(files_left(config, drawn_slabs=drawn)),
        device=hardware.device,
        source=hardware.source,
    )


def plan_record(plan: Plan, notes: Sequence[str]) -> dict[str, Any]:
    """A plan and what it rests on, ready for JSON."""
    return {**asdict(plan), "notes": list(notes)}


def _dry_run_bytes(jobs: int) -> int:
    """Memory of Snakemake with the graph of so many jobs."""
    return int(MEBI * (rates.DRY_RUN_MIB + rates.DRY_RUN_MIB_PER_JOB * jobs))


def _pyramid_voxels(volume: VolumeLayout) -> int:
    """Voxels of all levels; a slide holds the same ones again."""
    stains, sections, _, _ = volume.shape
    planes = (volume.plane(level) for level in range(volume.levels))
    return stains * sections * sum(height * width for height, width in planes)
