"""What the jobs around the network cost, by `benchmarks/rehearsal.py` and `workflow_cost.py`."""

from __future__ import annotations

SECONDS_PER_JOB = 6.5e-3
"""Time of a dry run, on the slower of two machines; the other took 1.7e-3."""
DRY_RUN_MIB, DRY_RUN_MIB_PER_JOB = 217.0, 0.022
"""Memory of the process that holds the graph of jobs: by itself, and for each of them."""
STARTUP_SECONDS = 10.0
"""Until the first patch of a slab job where nothing was measured: imports, weights, queue."""
PROCESS_MIB = 600.0
"""Memory of a process with torch, its weights not counted, where nothing was measured."""

VOXELS_PER_SECOND = {"stitch": 15e6, "pyramid": 17e6, "export_wsi": 15e6}
"""Voxels of the volume that one core stitches, halves into a pyramid, or writes as slides."""

NOISE_PER_SECOND = 146e6
"""Numbers of published noise that one core draws."""

WORKSPACE_PATCHES = 160
"""Memory of the network's kernels where nothing was measured, in features of one patch."""
