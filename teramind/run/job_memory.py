"""Memory that jobs ask the scheduler for, in MB, where it grows with the slab. Needs no torch.

`teramind.plan.memory` counts the arrays of a given network one by one; this bounds them.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from teramind.config import Config
from teramind.schedule import MEMORY_PLANES

SLAB_STATES = 5
"""A slab job holds the state, the next and a blank one, and the expression, and needs some room."""

STITCH_STATES, STITCH_MB = 3, 1000
"""Stitching holds a state as read and whole, and its grey levels; MB of all else."""


def slab_job_megabytes(config: Config, phase: int) -> int:
    """Memory of a slab's job: `generate.memory_mb`, and states with the frame of the phase."""
    frame = len(config.layout().phase_steps(phase)) * config.network.patch
    planes = SLAB_STATES * MEMORY_PLANES[config.generate.solver]
    return config.generate.memory_mb + planes * _state_megabytes(config, phase, frame)


def stitch_megabytes(config: Config) -> int:
    """Memory of a slab's stitching."""
    return STITCH_MB + STITCH_STATES * _state_megabytes(config, config.generate.phases - 1, 0)


def _state_megabytes(config: Config, phase: int, frame: int) -> int:
    """One window's float32 state of the largest slab, with a frame and half a patch around it.

    No slab is larger than what is wanted, and no frame leaves the bounds.
    """
    layout = config.layout()
    wanted, bounds = layout.wanted(phase), layout.bounds
    height, width = (
        min(min(layout.slab, inner) + 2 * frame, outer + layout.patch)
        for inner, outer in ((wanted.height, bounds.height), (wanted.width, bounds.width))
    )
    channels = len(config.network.stains) * config.windows.depth
    return math.ceil(4e-6 * channels * height * width)


LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Where a container finds its limit in bytes, if it has one."""


def megabytes_here() -> int:
    """Memory of this machine, or what of it may be used."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = LIMIT.read_text().strip() if LIMIT.is_file() else "max"
    return min(found, int(limit) if limit.isdigit() else found) // 1_000_000
