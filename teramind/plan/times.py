"""Seconds that jobs take, and bytes of the states that they leave."""

from __future__ import annotations

from collections.abc import Sequence

from teramind.config import Config
from teramind.engine.solver import SOLVERS
from teramind.geometry import Layout
from teramind.network import NetworkSpec
from teramind.plan import rates
from teramind.plan.assume import Assumptions
from teramind.plan.hardware import speed
from teramind.plan.memory import FLOAT
from teramind.plan.simulate import Course, Job
from teramind.plan.work import PhaseWork


class StateBytes:
    """Payload of the state files; before the last phase they hold what the solver remembers."""

    def __init__(self, config: Config, spec: NetworkSpec) -> None:
        self.layout, self.planes = config.layout(), SOLVERS[config.generate.solver].planes
        self.pixel = spec.channels * (2 if config.generate.state == "float16" else FLOAT)

    def __call__(self, job: Job) -> int:
        """Bytes of the state that a job leaves."""
        return self.of(job[1], _pixels(self.layout, job))

    def of(self, phase: int, pixels: int) -> int:
        """Bytes of so many pixels at the end of a phase."""
        return self.pixel * pixels * (1 if phase == self.layout.phases - 1 else self.planes)


class JobTimes:
    """Seconds of every job.

    Raises:
        UserError: when nothing is known of the machine's speed.
    """

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
        """Seconds of a slab's phase, or of stitching it."""
        slab, phase = job
        if phase == self.layout.phases:
            voxels = self.depth * _pixels(self.layout, (slab, phase - 1))
            return self.startup + voxels / rates.VOXELS_PER_SECOND["stitch"]
        work = self.phases[phase]
        stack = slab.window // self.layout.stack
        place = stack, work.rows.index(slab.row), work.cols.index(slab.col)
        return self._network_seconds(int(work.encoded[place]), int(work.decoded[place]))

    def longest(self) -> float:
        """Seconds of the largest slab job."""
        return max(
            self._network_seconds(int(work.encoded.max()), int(work.decoded.max()))
            for work in self.phases
        )

    def network(self) -> float:
        """Seconds of all slab jobs together."""
        return sum(
            work.decoded.size * self.startup
            + self._network_seconds(int(work.encoded.sum()), int(work.decoded.sum()))
            - self.startup
            for work in self.phases
        )

    def others(self) -> float:
        """Seconds of stitching, pyramids and slides together."""
        jobs = self.phases[-1].decoded.size + 2 * self.layout.windows.generated
        per_voxel = sum(1 / rate for rate in rates.VOXELS_PER_SECOND.values())
        return jobs * self.startup + per_voxel * self.voxels

    def wall(self, course: Course) -> float:
        """Seconds of the run: after the course of its first windows workers share what is left.

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


def _pixels(layout: Layout, job: Job) -> int:
    """Pixels of a slab's core in all its windows."""
    return layout.core(*job).area * len(layout.windows_of(job[0]))
