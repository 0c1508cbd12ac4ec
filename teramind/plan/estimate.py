"""The plan of a run: what it will compute, hold, write and take, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from teramind.config import Config
from teramind.engine.solver import SOLVERS
from teramind.errors import UserError
from teramind.geometry import Layout
from teramind.network import NetworkSpec
from teramind.plan import rates
from teramind.plan.flops import PatchCost
from teramind.plan.hardware import Hardware, known_hardware
from teramind.plan.jobs import files_left, jobs_per_rule
from teramind.plan.memory import FLOAT, job_bytes
from teramind.plan.simulate import Course, Job, simulate
from teramind.plan.tissue import Mask
from teramind.plan.work import PhaseWork, phase_work, wanted_work
from teramind.volume import VolumeLayout
from teramind.volume.planned import volume_settings

MEBI, GIBI = 1 << 20, 1 << 30
SIMULATED = 2
"""Stacks of windows whose course is followed; those after them repeat it."""


@dataclass(frozen=True)
class Assumptions:
    """What a plan rests on besides the configuration.

    Attributes:
        spec: sizes of the network.
        cost: of its patches.
        genes: of the raster.
        hardware: the machine.
        wanted: patches to draw per window; None: the raster is not there, all of the region.
        workers: jobs that run at a time.
    """

    spec: NetworkSpec
    cost: PatchCost
    genes: int
    hardware: Hardware
    wanted: Sequence[Mask] | None
    workers: int


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


def speed(hardware: Hardware, precision: str) -> float:
    """Operations per second of the network.

    Where this precision was not measured another one stands in, and where only the peak is known
    the share of it that the published run reached on A100.
    """
    if hardware.gflops:
        any_of_them = next(iter(hardware.gflops.values()))
        return 1e9 * hardware.gflops.get(precision, any_of_them)
    known = known_hardware()["a100"]
    if not hardware.matrix_peak_gflops or not known.matrix_peak_gflops:
        raise UserError(f"hardware {hardware.device}: neither gflops nor matrix_peak_gflops")
    share = known.gflops["published"] / known.matrix_peak_gflops
    return 1e9 * share * hardware.matrix_peak_gflops


def estimate(config: Config, given: Assumptions) -> Plan:
    """Plan a run of `config`."""
    layout, spec, hardware = config.layout(), given.spec, given.hardware
    phases = [phase_work(layout, phase, given.wanted) for phase in range(layout.phases)]
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
    network, other = times.network(), times.others()
    drawn = _drawn_slabs(layout, given.wanted)
    jobs = jobs_per_rule(config)
    volume = VolumeLayout(**volume_settings(config))
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
        job_bytes=_job_memory(layout, given, planes=SOLVERS[config.generate.solver].planes),
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


class StateBytes:
    """Payload of the state files; before the last phase they hold what the solver remembers."""

    def __init__(self, config: Config, spec: NetworkSpec) -> None:
        self.layout, self.planes = config.layout(), SOLVERS[config.generate.solver].planes
        self.pixel = spec.channels * (2 if config.generate.state == "float16" else FLOAT)

    def __call__(self, job: Job) -> int:
        """Of the state that a job leaves."""
        return self.of(job[1], _pixels(self.layout, job))

    def of(self, phase: int, pixels: int) -> int:
        """Of so many pixels at the end of a phase."""
        return self.pixel * pixels * (1 if phase == self.layout.phases - 1 else self.planes)


class JobTimes:
    """Seconds of every job."""

    def __init__(self, config: Config, given: Assumptions, phases: Sequence[PhaseWork]) -> None:
        self.layout, self.phases, self.given = config.layout(), phases, given
        hardware = given.hardware
        self.startup = (
            rates.STARTUP_SECONDS if hardware.startup_seconds is None else hardware.startup_seconds
        )
        self.per_second = speed(hardware, config.generate.precision)
        self.voxels = len(config.network.stains) * self.layout.voxels
        self.depth = len(config.network.stains) * self.layout.windows.depth

    def seconds(self, job: Job) -> float:
        """Of a slab's phase, or of stitching it."""
        slab, phase = job
        if phase == self.layout.phases:
            voxels = self.depth * _pixels(self.layout, (slab, phase - 1))
            return self.startup + voxels / rates.VOXELS_PER_SECOND["stitch"]
        work = self.phases[phase]
        stack = slab.window // self.layout.stack
        place = stack, work.rows.index(slab.row), work.cols.index(slab.col)
        return self._network_seconds(int(work.encoded[place]), int(work.decoded[place]))

    def longest(self) -> float:
        """Of the largest slab job."""
        return max(
            self._network_seconds(int(work.encoded.max()), int(work.decoded.max()))
            for work in self.phases
        )

    def network(self) -> float:
        """Of all slab jobs together."""
        return sum(
            work.decoded.size * self.startup
            + self._network_seconds(int(work.encoded.sum()), int(work.decoded.sum()))
            - self.startup
            for work in self.phases
        )

    def others(self) -> float:
        """Of stitching, pyramids and slides together."""
        jobs = self.phases[-1].decoded.size + 2 * self.layout.windows.generated
        per_voxel = sum(1 / rate for rate in rates.VOXELS_PER_SECOND.values())
        return jobs * self.startup + per_voxel * self.voxels

    def wall(self, course: Course) -> float:
        """Of the run: after the course of its first windows the workers share what is left.

        The pyramid and the slide of the last section come after all else, one after the other.
        """
        section = self.voxels / self.layout.windows.generated
        last = sum(section / rates.VOXELS_PER_SECOND[rule] for rule in ("pyramid", "export_wsi"))
        last += 2 * self.startup
        rest = self.network() + self.others() - course.worked - last
        return course.seconds + rest / self.given.workers + last

    def _network_seconds(self, encoded: int, decoded: int) -> float:
        flops = self.given.cost.flops(encoded=encoded, decoded=decoded)
        return self.startup + flops / self.per_second


def _dry_run_bytes(jobs: int) -> int:
    """Memory of Snakemake with the graph of so many jobs."""
    return int(MEBI * (rates.DRY_RUN_MIB + rates.DRY_RUN_MIB_PER_JOB * jobs))


def _pixels(layout: Layout, job: Job) -> int:
    """Of a slab's core in all its windows."""
    return layout.core(*job).area * len(layout.windows_of(job[0]))


def _pyramid_voxels(volume: VolumeLayout) -> int:
    """Voxels of all levels; a slide holds the same ones again."""
    stains, sections, _, _ = volume.shape
    planes = (volume.plane(level) for level in range(volume.levels))
    return stains * sections * sum(height * width for height, width in planes)


def _job_memory(layout: Layout, given: Assumptions, *, planes: int) -> int:
    """Of the largest slab job; what was not measured of its process is taken from `rates`."""
    hardware, weights = given.hardware, FLOAT * given.cost.weights
    process = rates.PROCESS_MIB * MEBI + weights
    if hardware.process_mib is not None:
        process = hardware.process_mib * MEBI
    workspace = float(rates.WORKSPACE_PATCHES * given.cost.feature_bytes)
    if hardware.workspace_mib is not None:
        workspace = hardware.workspace_mib * MEBI
    arrays = job_bytes(
        layout, given.spec, given.cost, planes=planes, genes=given.genes, workspace=int(workspace)
    )
    return int(process + arrays)


def _drawn_slabs(layout: Layout, wanted: Sequence[Mask] | None) -> int:
    """Sections times slabs that hold anything but background."""
    last, drawn = layout.phases - 1, 0
    for slab in layout.slabs(last):
        place = layout.core(slab, last).within(layout.bounds, step=layout.patch)
        for window in layout.windows_of(slab):
            if wanted is None or wanted[window][place].any():
                drawn += len(layout.windows.kept(window))
    return drawn
