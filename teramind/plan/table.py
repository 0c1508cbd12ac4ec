"""A plan in words and numbers, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from teramind.plan.estimate import Plan
from teramind.units import duration, size


def plan_table(plan: Plan, notes: Sequence[str]) -> str:
    """The plan as lines of name and value, and what it rests on."""
    lines = list(_lines(plan))
    width = max(len(name) for name, _ in lines)
    table = "\n".join(f"{name:<{width}}  {value}" for name, value in lines)
    return "\n".join([table, *(f"note: {note}" for note in notes)])


def search_table(plans: Sequence[Plan]) -> str:
    """Plans of a search, one line each, the cheapest first."""
    work = ("jobs", "frame", "job hours", "wall", "longest job", "memory", "disk")
    head = ("slab", "windows", "phases", *work)
    rows = [
        (
            str(plan.slab),
            str(plan.stack),
            str(plan.phases),
            f"{sum(plan.jobs.values()):,}",
            f"x {plan.frame_overhead:.2f}",
            duration(3600 * (plan.network_hours + plan.other_hours)),
            duration(3600 * plan.wall_hours),
            duration(plan.job_seconds),
            size(plan.job_bytes),
            size(plan.state_peak_bytes + plan.result_bytes),
        )
        for plan in plans
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        for row in (head, *rows)
    )


def _lines(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "volume", f"{plan.voxels:.3g} voxels"
    stacks = f"{plan.windows} windows, {plan.stack} at a time"
    yield "slabs", f"{plan.slabs:,} of {plan.slab} pixels in each of {stacks}"
    yield "steps", f"{plan.steps} in {plan.phases} phases"
    yield "jobs", f"{sum(plan.jobs.values()):,}"
    yield "dry run", f"{duration(plan.dry_run_seconds)}, {size(plan.dry_run_bytes)} of memory"
    source = "read from the raster" if plan.tissue_known else "assumed"
    yield "tissue", f"{plan.tissue_fraction:.1%} of the region, {source}"
    yield "frame overhead", f"{plan.frame_overhead:.3f} patches computed per patch wanted"
    yield "encoder passes", f"{plan.encoder_redundancy:.3f} per patch computed"
    yield "work", f"{plan.petaflop:,.4g} PFLOP in the network"
    yield "machine", f"{plan.device}: {plan.source}"
    yield (
        "slab jobs",
        f"{duration(3600 * plan.network_hours)} together, {plan.startup_share:.1%} start-up",
    )
    yield "other jobs", f"{duration(3600 * plan.other_hours)} together"
    yield "wall time", f"{duration(3600 * plan.wall_hours)} with {plan.workers} jobs at a time"
    yield "longest job", f"{duration(plan.job_seconds)}, {size(plan.job_bytes)} of memory"
    yield (
        "states",
        f"{size(plan.state_peak_bytes)} on the disk at most, {size(plan.state_bytes)} in all",
    )
    files = f"{sum(plan.files.values()):,} files"
    yield "results", f"{size(plan.result_bytes)} before compression in {files}"
