"""Memory of one slab's job, from the arrays that `teramind.engine.generate` holds."""

from __future__ import annotations

from teramind.engine.gene_features import GENE_BYTES
from teramind.engine.phase_plane import band_height
from teramind.geometry import BIN, Layout, Rect
from teramind.network import NetworkSpec
from teramind.plan import rates
from teramind.plan.flops import PatchCost
from teramind.plan.hardware import Hardware
from teramind.units import MEBI

FLOAT = 4
"""Bytes of a float32."""


def plane_bytes(frame: Rect, spec: NetworkSpec, *, planes: int, genes: int) -> int:
    """The solver's memory, its successor and the blank plane of a frame, and its counts.

    Args:
        frame: pixels, the half patch around included.
        spec: the network.
        planes: of the solver's memory.
        genes: of the raster.
    """
    held = 3 * planes * spec.channels * FLOAT * frame.area
    return held + spec.sections * genes * (frame.height // BIN) * (frame.width // BIN)


def band_bytes(frame: Rect, spec: NetworkSpec, cost: PatchCost) -> int:
    """Features of the encoded patches of a frame that are worked on together."""
    cols, rows = frame.width // spec.patch, frame.height // spec.patch
    return min(band_height(cols), rows) * cols * cost.feature_bytes


def gene_bytes(frame: Rect, spec: NetworkSpec, cost: PatchCost) -> int:
    """Gene features that a phase keeps from step to step."""
    patches = frame.width // spec.patch * (frame.height // spec.patch)
    return min(patches * cost.gene_bytes, GENE_BYTES)


def work_bytes(
    frame: Rect, spec: NetworkSpec, cost: PatchCost, *, planes: int, genes: int, workspace: int
) -> int:
    """Most that a phase holds: while it reads, that is less.

    It holds three bands of features while it puts the batches of one together, and two and the
    kernels' workspace while it decodes their patches.
    """
    band = band_bytes(frame, spec, cost)
    held = plane_bytes(frame, spec, planes=planes, genes=genes) + gene_bytes(frame, spec, cost)
    return held + max(3 * band, 2 * band + workspace)


def job_bytes(
    layout: Layout,
    spec: NetworkSpec,
    cost: PatchCost,
    *,
    planes: int,
    genes: int,
    workspace: int,
) -> int:
    """Memory of the largest job of all phases, its process not counted."""
    found = []
    for phase in range(layout.phases):
        slab = max(layout.slabs_of_window(0, phase), key=lambda s: layout.core(s, phase).area)
        frame = layout.computed(slab, phase).grown(spec.half)
        found.append(work_bytes(frame, spec, cost, planes=planes, genes=genes, workspace=workspace))
    return max(found)


def process_bytes(hardware: Hardware, cost: PatchCost) -> int:
    """Memory of a job's process with the network loaded; from `rates` where it was not measured."""
    if hardware.process_mib is not None:
        return int(hardware.process_mib * MEBI)
    return int(rates.PROCESS_MIB * MEBI) + FLOAT * cost.weights


def workspace_bytes(hardware: Hardware, cost: PatchCost) -> int:
    """Memory of the network's kernels beside it; from `rates` where it was not measured."""
    if hardware.workspace_mib is not None:
        return int(hardware.workspace_mib * MEBI)
    return rates.WORKSPACE_PATCHES * cost.feature_bytes
