"""What the jobs around the network cost, by `benchmarks/rehearsal.py` and `workflow_cost.py`."""

from __future__ import annotations

SECONDS_PER_JOB = 6.5e-3
"""Of a dry run, on the slower of two machines; the other took 1.7e-3."""
MEGABYTES_PER_JOB = 0.025
"""Of the process that holds the graph of jobs."""
STARTUP_SECONDS = 10.0
"""Of a slab's job before its first patch where nothing was measured: imports, weights, queue."""
PROCESS_MIB = 600.0
"""Of a process with torch, its weights not counted, where nothing was measured."""

VOXELS_PER_SECOND = {"stitch": 15e6, "pyramid": 17e6, "export_wsi": 15e6}
"""Voxels of the volume that one core stitches, halves into a pyramid, or writes as slides."""

WORKSPACE_PATCHES = 160
"""Memory of the network's kernels where nothing was measured, in features of one patch."""
