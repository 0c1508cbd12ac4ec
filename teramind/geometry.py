"""The lattice in integers: rectangles, patches, slabs, windows, phases and who depends on whom.

Everything is anchored at pixel (0, 0) of the plane. Patch (i, j) covers the pixels
[i P, (i + 1) P) x [j P, (j + 1) P). This module imports neither torch nor zarr.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from teramind.errors import UserError

BIN = 16
"""Edge of one expression bin in pixels, fixed by the published network."""


class Rect(NamedTuple):
    """A rectangle of the plane in pixels: top, left, height, width."""

    y: int
    x: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """First row below the rectangle."""
        return self.y + self.height

    @property
    def right(self) -> int:
        """First column right of the rectangle."""
        return self.x + self.width

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Slices of the rectangle in an array that covers the plane from pixel (0, 0)."""
        return slice(self.y, self.bottom), slice(self.x, self.right)

    def grown(self, margin: int) -> Rect:
        """The rectangle with `margin` more pixels on every side."""
        return Rect(
            self.y - margin, self.x - margin, self.height + 2 * margin, self.width + 2 * margin
        )

    def cut(self, other: Rect) -> Rect:
        """What the two rectangles share; height and width are 0 when they share nothing."""
        y, x = max(self.y, other.y), max(self.x, other.x)
        height, width = min(self.bottom, other.bottom) - y, min(self.right, other.right) - x
        return Rect(y, x, height, width) if min(height, width) > 0 else EMPTY

    def rounded_out(self, step: int) -> Rect:
        """The smallest rectangle around this one whose edges are multiples of `step`."""
        y, x = self.y // step * step, self.x // step * step
        return Rect(y, x, -(-self.bottom // step) * step - y, -(-self.right // step) * step - x)

    def blocks(self, edge: int) -> Iterator[Rect]:
        """Cut the rectangle into blocks of `edge` pixels, row by row, the last ones smaller."""
        for y in range(self.y, self.bottom, edge):
            for x in range(self.x, self.right, edge):
                yield Rect(y, x, edge, edge).cut(self)

    def within(self, outer: Rect, step: int = 1) -> tuple[slice, slice]:
        """Slices of this rectangle in an array that covers `outer`, an element every `step` pixels.

        The edges of both must be multiples of `step`.
        """
        y, x = (self.y - outer.y) // step, (self.x - outer.x) // step
        return slice(y, y + self.height // step), slice(x, x + self.width // step)


EMPTY = Rect(0, 0, 0, 0)
"""The rectangle without pixels."""


PADDING = {1: 0, 4: 1, 8: 1, 16: 3}
"""Empty expression sections before the first one, by sections S in a window (as published)."""


@dataclass(frozen=True)
class Windows:
    """The z-windows over a stack of `planes` expression sections, S = `sections` in each.

    Window w generates `images(w)`. With S = 8 and 16 the outermost sections are not generated,
    as published. A last window may reach beyond the stack; what it generates there is dropped.
    """

    sections: int
    planes: int

    @property
    def depth(self) -> int:
        """Image sections Z that one window generates, and the step from window to window."""
        return (self.sections + 1) // 2

    @property
    def first(self) -> int:
        """First section that is generated; the last is `planes - first - 1`."""
        return (self.sections - self.depth) // 2 - PADDING[self.sections]

    @property
    def generated(self) -> int:
        """Number of sections that are generated: the depth of the volume."""
        return max(self.planes - 2 * self.first, 0)

    @property
    def drawn(self) -> range:
        """The sections that are generated."""
        return range(self.first, self.first + self.generated)

    def of(self, section: int) -> int:
        """The window that generates a section."""
        return self.z(section) // self.depth

    def z(self, section: int) -> int:
        """Place of a section in the volume, which begins with `first`."""
        return section - self.first

    def __len__(self) -> int:
        return -(-self.generated // self.depth)

    def expression(self, window: int) -> range:
        """Expression sections that `window` reads; those outside 0..planes-1 are empty."""
        start = window * self.depth - PADDING[self.sections]
        return range(start, start + self.sections)

    def images(self, window: int) -> range:
        """Sections that `window` generates; those behind the last of `drawn` are dropped."""
        start = self.first + window * self.depth
        return range(start, start + self.depth)

    def kept(self, window: int) -> range:
        """Sections that `window` generates and the volume has."""
        sections = self.images(window)
        return sections[: max(self.drawn.stop - sections.start, 0)]


class Slab(NamedTuple):
    """The unit of cluster work: the first of its z-windows and a place in the grid of slabs."""

    window: int
    row: int
    col: int

    def __str__(self) -> str:
        return f"w{self.window:02d}_r{self.row:02d}_c{self.col:02d}"

    @classmethod
    def parse(cls, name: str) -> Slab:
        """Read back what `str` wrote. Raises UserError on anything else."""
        match = re.fullmatch(r"w(\d+)_r(\d+)_c(\d+)", name)
        if not match:
            raise UserError(f"slab {name!r}: must look like w03_r01_c02")
        return cls(*(int(part) for part in match.groups()))


SLAB_PATTERN = r"w\d+_r\d+_c\d+"


@dataclass(frozen=True)
class Layout:
    """How a region is cut into slabs, and the sampling steps into phases.

    A step of one patch reads the state half a patch around it, so what is wanted of the last step
    must be grown by one patch for every step before. Between phases that growth is read from the
    neighbouring slabs' states of the phase before; inside a phase it is computed.

    Attributes:
        bounds: the volume's bounds in pixels, beyond which the state is -1; multiples of `patch`.
        region: what is wanted, inside `bounds`; multiples of `patch`.
        patch: patch edge P.
        slab: slab edge in pixels, a multiple of `patch`.
        windows: the z-windows.
        steps: sampling steps n.
        phases: number of phases.
        stack: z-windows of a slab, taken through a phase one after the other.
    """

    bounds: Rect
    region: Rect
    patch: int
    slab: int
    windows: Windows
    steps: int
    phases: int
    stack: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.phases <= self.steps:
            raise UserError(f"phases: {self.phases}; must lie between 1 and steps ({self.steps})")
        if self.slab < self.patch or self.slab % self.patch:
            raise UserError(
                f"slab: {self.slab} pixels is no multiple of the patch edge {self.patch}"
            )
        longest = max(len(self.phase_steps(p)) for p in range(self.phases))
        if self.phases > 1 and self.slab < longest * self.patch:
            raise UserError(
                f"slab: {self.slab} pixels is too small for phases of {longest} steps; it must be "
                f"at least {longest * self.patch}, or phases at least "
                f"{-(-self.steps * self.patch // self.slab)}"
            )

    @classmethod
    def whole(
        cls, region: Rect, *, patch: int, windows: Windows, steps: int, bounds: Rect | None = None
    ) -> Layout:
        """A region in one slab and one phase; `bounds` are its own edges by default."""
        slab = max(region.height, region.width)
        return cls(bounds or region, region, patch, slab, windows, steps, phases=1)

    def phase_steps(self, phase: int) -> range:
        """Steps (0 is the first, at the largest timestep) of `phase`, as even as can be."""
        return range(phase * self.steps // self.phases, (phase + 1) * self.steps // self.phases)

    def reach(self, phase: int) -> int:
        """Patches by which the region is grown at the end of `phase`."""
        return self.steps - self.phase_steps(phase).stop

    def wanted(self, phase: int) -> Rect:
        """Pixels whose state is wanted at the end of `phase`."""
        return self._wanted[phase]

    @cached_property
    def _wanted(self) -> tuple[Rect, ...]:
        """What is wanted at the end of each phase; a plan asks for it very often."""
        margins = (self.reach(phase) * self.patch for phase in range(self.phases))
        return tuple(self.region.grown(margin).cut(self.bounds) for margin in margins)

    @cached_property
    def origin(self) -> tuple[int, int]:
        """Pixel (y, x) of slab (row 0, col 0); the region starts at a slab's corner."""
        first = self.wanted(0)
        rows = -(-(self.region.y - first.y) // self.slab)
        cols = -(-(self.region.x - first.x) // self.slab)
        return self.region.y - rows * self.slab, self.region.x - cols * self.slab

    def rect(self, slab: Slab) -> Rect:
        """Pixels of a slab, cut to the bounds."""
        y, x = self.origin
        whole = Rect(y + slab.row * self.slab, x + slab.col * self.slab, self.slab, self.slab)
        return whole.cut(self.bounds)

    def core(self, slab: Slab, phase: int) -> Rect:
        """Pixels of a slab that are wanted at the end of `phase`."""
        return self.rect(slab).cut(self.wanted(phase))

    def computed(self, slab: Slab, phase: int) -> Rect:
        """Pixels that `phase` computes for a slab: its core and the frame around it."""
        frame = (len(self.phase_steps(phase)) - 1) * self.patch
        return self.core(slab, phase).grown(frame).cut(self.bounds)

    def read(self, slab: Slab, phase: int) -> Rect:
        """Pixels of the state before `phase` that a slab reads in it."""
        return self.computed(slab, phase).grown(self.patch // 2).cut(self.bounds)

    def read_margin(self, phase: int) -> int:
        """Pixels from its edge that a slab's neighbours read of its state at the end of `phase`.

        After the last phase it is the row of pixels across the seam.
        """
        if phase == self.phases - 1:
            return 1
        return (len(self.phase_steps(phase + 1)) - 1) * self.patch + self.patch // 2

    def slabs(self, phase: int) -> Iterator[Slab]:
        """Slabs that have work in `phase`; those of the last phase make up the volume."""
        rows, cols = self.grid(phase)
        for window in self.stacks:
            for row in rows:
                for col in cols:
                    yield Slab(window, row, col)

    @property
    def stacks(self) -> range:
        """The first z-window of every slab at one place."""
        return range(0, len(self.windows), self.stack)

    def require(self, slab: Slab, phase: int) -> None:
        """Refuse a slab that has no work in `phase`. Raises UserError."""
        rows, cols = self.grid(phase)
        if slab.window not in self.stacks or slab.row not in rows or slab.col not in cols:
            first = Slab(self.stacks[0], rows[0], cols[0])
            last = Slab(self.stacks[-1], rows[-1], cols[-1])
            raise UserError(f"slab {slab}: there is none; the first is {first}, the last {last}")

    def windows_of(self, slab: Slab) -> range:
        """The z-windows of a slab."""
        return range(slab.window, min(slab.window + self.stack, len(self.windows)))

    def singles(self, slab: Slab) -> list[Slab]:
        """The z-windows of a slab, each as if it were a slab of its own."""
        return [slab._replace(window=window) for window in self.windows_of(slab)]

    def grid(self, phase: int) -> tuple[range, range]:
        """Rows and columns of the slabs that have work in `phase`."""
        wanted, (y, x) = self.wanted(phase), self.origin
        rows = range((wanted.y - y) // self.slab, -(-(wanted.bottom - y) // self.slab))
        cols = range((wanted.x - x) // self.slab, -(-(wanted.right - x) // self.slab))
        return rows, cols

    @property
    def jobs(self) -> int:
        """Slabs of all phases together: the jobs that generate."""
        grids = (self.grid(phase) for phase in range(self.phases))
        stacks = -(-len(self.windows) // self.stack)
        return stacks * sum(len(rows) * len(cols) for rows, cols in grids)

    def sources(self, slab: Slab, phase: int) -> list[Slab]:
        """Slabs of the phase before that `slab` reads: itself and those around it."""
        near = [
            Slab(slab.window, slab.row + dy, slab.col + dx)
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        ]
        return [s for s in near if self.core(s, phase - 1) != EMPTY]

    def priority(self, slab: Slab, phase: int) -> int:
        """Rank of a slab's job among all, the first job highest; stitching counts as a phase.

        Windows come in turn, and inside one every job runs as soon as the last slab that it reads
        can be there: one row and column behind that slab. So states live for a few rows of slabs,
        not for a window or the whole volume.
        """
        # More rows and columns than slabs and phases together, so that places differ.
        rows, cols = (size // self.slab + self.phases + 4 for size in self.bounds[2:])
        place = (slab.window * rows + slab.row + phase) * cols + slab.col + phase
        return len(self.windows) * rows * cols - place

    def slabs_of_window(self, window: int, phase: int) -> Iterator[Slab]:
        """Slabs that hold a window and have work in `phase`."""
        return (s for s in self.slabs(phase) if window in self.windows_of(s))

    @property
    def voxels(self) -> int:
        """Voxels of one stain in the region."""
        return self.region.area * self.windows.generated
