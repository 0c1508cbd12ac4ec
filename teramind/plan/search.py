"""The cheapest slab edge, windows per slab and number of phases under limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import product
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from teramind.config import Config
from teramind.config.conflicts import require_few_jobs
from teramind.errors import UserError
from teramind.geometry import Layout
from teramind.plan.assume import Assumptions
from teramind.plan.estimate import Plan, count_work, estimate_counted
from teramind.units import GIBI

EDGES = (256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)
"""Slab edges tried, in pixels; every shard halves into whole pixels several times."""
STACKS = (1, 5)
"""Windows per slab tried, and all of them."""
_STDERR = Console(stderr=True)


class Broken(NamedTuple):
    """A limit that a plan does not keep to."""

    name: str
    unit: str
    value: float
    limit: float

    def __str__(self) -> str:
        return " ".join(f"{self.name} {self.value:.3g} {self.unit}".split()) + f" > {self.limit:g}"


@dataclass(frozen=True)
class Limits:
    """What a plan must keep to, each above 0; None: no limit.

    Attributes:
        memory_gib: of a job.
        job_hours: of a job.
        jobs: in all.
        disk_gib: of states at their peak and results together.
    """

    memory_gib: float | None = None
    job_hours: float | None = None
    jobs: int | None = None
    disk_gib: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise UserError(f"limit of {field.name}: {value:g}; must be above 0")

    def broken(self, plan: Plan) -> list[Broken]:
        """Limits that a plan does not keep to."""
        disk = plan.state_peak_bytes + plan.result_bytes
        found = (
            ("memory", "GiB", plan.job_bytes / GIBI, self.memory_gib),
            ("job", "h", plan.job_seconds / 3600, self.job_hours),
            ("jobs", "", sum(plan.jobs.values()), self.jobs),
            ("disk", "GiB", disk / GIBI, self.disk_gib),
        )
        return [
            Broken(name, unit, value, limit)
            for name, unit, value, limit in found
            if limit is not None and value > limit
        ]


def search(config: Config, given: Assumptions, limits: Limits) -> list[Plan]:
    """Plans within the limits, the cheapest first: fewest hours of all jobs together.

    Raises:
        UserError: when no slabs and number of phases keep to the limits.
    """
    tried: list[Plan] = []
    candidates, hidden = list(_candidates(config)), not _STDERR.is_terminal
    for alike in track(candidates, "plans", console=_STDERR, transient=True, disable=hidden):
        counted = count_work(alike[0], given)
        tried += [estimate_counted(candidate, given, counted) for candidate in alike]
    kept = [plan for plan in tried if not limits.broken(plan)]
    if not kept:
        nearest = min(tried, key=lambda plan: max(b.value / b.limit for b in limits.broken(plan)))
        raise UserError(
            f"no plan keeps to the limits; slab {nearest.slab}, windows {nearest.stack} with "
            f"{nearest.phases} phases comes nearest: {', '.join(map(str, limits.broken(nearest)))}"
        )
    return sorted(kept, key=lambda plan: (plan.network_hours + plan.other_hours, plan.slab))


def applied(config: Config, plan: Plan) -> Config:
    """The configuration with the slabs and phases of a plan."""
    return _with(config, slab=plan.slab, windows=plan.stack, phases=plan.phases)


def _with(config: Config, **changes: int) -> Config:
    generate = config.generate.model_copy(update=changes)
    return config.model_copy(update={"generate": generate})


def _candidates(config: Config) -> Iterator[list[Config]]:
    """The configuration with other slabs and phases, as far as they fit it and each other.

    Those of a list differ in the windows of a slab alone.
    """
    layout = config.layout()
    longest = max(layout.region.height, layout.region.width)
    edges = {edge for edge in EDGES if edge % layout.patch == 0 and edge < 2 * longest}
    stacks = {stack for stack in STACKS if stack < len(layout.windows)} | {len(layout.windows)}
    for edge, phases in product(sorted(edges | {layout.slab}), _phases(layout)):
        alike = (
            _with(config, slab=edge, windows=stack, phases=phases)
            for stack in sorted(stacks | {layout.stack})
        )
        if found := list(filter(_fits, alike)):
            yield found


def _phases(layout: Layout) -> list[int]:
    """Numbers of phases worth a try: more of them cost jobs and gain where a phase gets shorter."""
    fewest = {-(-layout.steps // longest) for longest in range(1, layout.steps + 1)}
    return sorted(fewest | {layout.phases})


def _fits(candidate: Config) -> bool:
    """Whether its slabs and phases go together and its jobs can be planned."""
    try:
        require_few_jobs(candidate)
    except UserError:
        return False
    return True
