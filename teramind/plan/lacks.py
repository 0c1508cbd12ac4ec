"""What a plan leaves out, and what its jobs would lack: one line each."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from teramind.config import Config
from teramind.engine.noise import PUBLISHED_TILE
from teramind.plan import rates
from teramind.plan.estimate import Plan
from teramind.plan.hardware import Hardware
from teramind.run.job_memory import slab_job_megabytes
from teramind.units import GIBI, duration, size

TRIVIAL = ("all", "provenance", "create_volume", "create_attention")
"""Rules that take no more than their start."""


def lacks(config: Config, hardware: Hardware, plan: Plan) -> Iterator[str]:
    """Lines for `plan_table` and `plan_record`, beside those of `assume`.

    Args:
        config: what is planned.
        hardware: the machine it is planned for.
        plan: as `estimate` made it.
    """
    yield f"the hours of these rules are not in it: {', '.join(_untimed(plan))}"
    yield f"the disk of these is not in it: {', '.join(_undisked(config))}"
    if config.generate.noise == "published":
        yield f"drawing published noise takes {duration(_noise_seconds(config))} more, together"
    if "attention" in plan.jobs:
        yield "attention's files are not counted"
    needed = plan.job_bytes / 1e6
    asked = max(slab_job_megabytes(config, phase) for phase in range(plan.phases))
    if needed > asked and not config.generate.gpus:
        enough = config.generate.memory_mb + ceil((needed - asked) / 1000) * 1000
        yield (
            f"a slab job takes {needed:,.0f} MB and asks for {asked:,}: set generate.memory_mb to "
            f"{enough}, or it will be tried twice"
        )
    if plan.job_seconds > 60 * config.generate.minutes:
        yield (
            f"a slab job takes {duration(plan.job_seconds)}; for a cluster set generate.minutes "
            f"({config.generate.minutes}) to {60 * ceil(plan.job_seconds / 3600)}"
        )
    room = hardware.memory_gib
    if config.generate.gpus and room and plan.job_bytes > room * GIBI:
        yield (
            f"a slab job takes {plan.job_bytes / GIBI:,.0f} GiB and {hardware.device} has "
            f"{room:g}: make generate.slab smaller"
        )


def _untimed(plan: Plan) -> Iterator[str]:
    """Rules whose time depends on more than a configuration tells; rounds are one training."""
    for rule in plan.jobs:
        timed = rule.startswith("generate_p") or rule in rates.VOXELS_PER_SECOND
        if not timed and rule not in TRIVIAL and not rule.startswith("train_r"):
            yield rule


def _undisked(config: Config) -> Iterator[str]:
    """What else a run leaves on the disk, with its size where that is known."""
    if config.archives:
        yield f"downloaded archives ({', '.join(config.archives)})"
    if config.phantom:
        yield "phantom"
    yield "raster"
    if config.converts:
        yield "converted checkpoint"
    if config.trains:
        yield "checkpoint and training states"
    if config.reference:
        plane, stains = config.plane, len(config.network.stains)
        voxels = stains * plane.sections * plane.height * plane.width
        yield f"resampled reference images ({size(voxels)} before compression)"


def _noise_seconds(config: Config) -> float:
    """Seconds of published noise: in the first phase each window draws tiles of all sections."""
    layout = config.layout()
    drawn = 0
    for slab in layout.slabs(0):
        tiles = layout.read(slab, 0).rounded_out(PUBLISHED_TILE)
        drawn += tiles.area * len(layout.windows_of(slab))
    return drawn * len(config.network.stains) * config.windows.generated / rates.NOISE_PER_SECOND
