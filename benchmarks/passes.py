"""What the engine does for a patch and a voxel, counted on its own geometry."""

from __future__ import annotations

from typing import NamedTuple

from teramind.engine.generate import Generator
from teramind.engine.noise import PhiloxNoise
from teramind.engine.phase_plane import touched
from teramind.engine.solver import sampling_steps
from teramind.engine.state import parts_of
from teramind.geometry import EMPTY, Layout, Rect, Slab, Windows
from teramind.network import Network
from teramind.plan.measure import EvenExpression

SLAB, STEPS, PHASES = 2048, 15, 3


class Counts(NamedTuple):
    """What a slab inside a large plane takes.

    Attributes:
        genes: gene branch passes per patch and step, all gene features being kept.
        encode: encoder passes per patch and step; the decoder makes one.
        frame: patches computed beyond the slab's own, as a part of these.
        read: bytes of state files read per voxel of one stain and section, stitching included.
        written: bytes of state files and volume written per voxel, nothing compressed.
    """

    genes: float
    encode: float
    frame: float
    read: float
    written: int


def count(network: Network) -> Counts:
    """Count for a slab of 2048 pixels with neighbours all round, 15 steps in 3 phases."""
    spec, whole = network.spec, Rect(0, 0, 5 * SLAB, 5 * SLAB)
    windows = Windows(sections=spec.sections, planes=spec.images)
    layout = Layout(whole, whole, spec.patch, SLAB, windows, STEPS, PHASES)
    noise = PhiloxNoise(seed=0, stains=len(spec.stains), patch=spec.patch)
    generator = Generator(network, EvenExpression(genes=1), noise, layout, sampling_steps(STEPS))
    slab = Slab(0, 2, 2)
    phases = [generator.masks(slab, phase) for phase in range(PHASES)]
    decoded = sum(mask.sum() for masks in phases for mask in masks)
    encoded = sum(touched(mask).sum() for masks in phases for mask in masks)
    first = sum(touched(masks[0]).sum() for masks in phases)  # the widest step of each phase
    return Counts(
        genes=first / decoded,
        encode=encoded / decoded,
        frame=decoded / (STEPS * (SLAB // spec.patch) ** 2) - 1,
        read=sum(_read(layout, slab, phase) for phase in range(1, PHASES + 1)),
        written=4 * PHASES + 1,
    )


def _read(layout: Layout, slab: Slab, phase: int) -> float:
    """Bytes per voxel that the job of a phase reads of states; stitching counts as a phase."""
    before = layout.core(slab, phase - 1)
    # Stitching reads the row and the column of pixels across the lower and the right seam.
    stitched = Rect(before.y, before.x, before.height + 1, before.width + 1)
    frame = layout.read(slab, phase) if phase < PHASES else stitched
    right, below = slab._replace(col=slab.col + 1), slab._replace(row=slab.row + 1)
    sources = layout.sources(slab, phase) if phase < PHASES else [slab, right, below]
    margin = layout.read_margin(phase - 1)
    parts = [part for s in sources for part in parts_of(layout.core(s, phase - 1), margin)]
    read = sum(part.area for part in parts if part.cut(frame) != EMPTY)
    return 4 * read / before.area
