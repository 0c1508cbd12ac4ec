"""Stitching: a slab's last state becomes voxels, and its seams are measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from teramind.config import Config
from teramind.engine.identity import run_digest, state_identity
from teramind.engine.state import SavedStates, load_parts, load_state, to_grey
from teramind.geometry import Rect, Slab
from teramind.volume import write_slab

State: TypeAlias = NDArray[np.floating]
"""State of one window, (stain z, y, x), or a piece of it."""


def stitch_slab(
    config: Config,
    slab: Slab,
    *,
    checkpoint: Path,
    raster: Path,
    state: Path,
    right: Path | None,
    below: Path | None,
    volume: Path,
) -> dict[str, Any]:
    """Write a slab's last state into the volume, window by window, and measure its seams.

    Args:
        config: the configuration.
        slab: which.
        checkpoint: the network, for the identity of the states.
        raster: the expression, likewise.
        state: its state after the last phase.
        right: the state of the slab right of it, if there is one.
        below: the state of the slab below it, if there is one.
        volume: the OME-Zarr volume.

    Returns:
        The receipt: slab, shards with checksums, seam numbers.
    """
    layout, run = config.layout(), run_digest(config, checkpoint=checkpoint, raster=raster)
    rect, last = layout.core(slab, layout.phases - 1), layout.phases - 1
    seams, shards = Seams(layout.patch), []

    def border(path: Path | None, edge: Rect, dy: int, dx: int, window: int) -> State | None:
        """The neighbour's row or column of pixels next to the slab."""
        if path is None:
            return None
        neighbour = slab._replace(row=slab.row + dy, col=slab.col + dx)
        identity = state_identity(neighbour, last, run)
        read = SavedStates(load_parts(path, window=window, identity=identity, near=edge))
        return in_volume(config, window, read(edge))

    for window in layout.windows_of(slab):
        _, own = load_state(state, window=window, identity=state_identity(slab, last, run))
        shards += _write_window(config, volume, window, rect, own)
        seams.add(
            in_volume(config, window, own),
            right=border(right, Rect(rect.y, rect.right, rect.height, 1), 0, 1, window),
            below=border(below, Rect(rect.bottom, rect.x, 1, rect.width), 1, 0, window),
        )
    return {"slab": str(slab), "shards": shards, "seams": seams.record()}


def in_volume(config: Config, window: int, state: State) -> State:
    """A view (stain, z, y, x) of the sections of a state (stain z, y, x) that the volume has."""
    planes = state.reshape(len(config.network.stains), -1, *state.shape[1:])
    return planes[:, : len(config.layout().windows.kept(window))]


def _write_window(
    config: Config, volume: Path, window: int, rect: Rect, state: State
) -> list[dict[str, Any]]:
    """Write a window's last state (stain z, y, x) of `rect`; return its shards."""
    layout = config.layout()
    sections = layout.windows.images(window)
    grey = np.empty(state.shape, np.uint8)
    for channel, plane in zip(grey, state, strict=True):  # one at a time, for they are large
        channel[:] = to_grey(plane)
    voxels = grey.reshape(len(config.network.stains), len(sections), rect.height, rect.width)
    return write_slab(
        volume,
        voxels=np.ascontiguousarray(voxels[:, : len(layout.windows.kept(window))]),
        z=layout.windows.z(sections.start),
        y=rect.y - layout.region.y,
        x=rect.x - layout.region.x,
    )


class Seams:
    """Grey-level steps across a slab's right and lower border, and inside its patches.

    Args:
        patch: patch edge P; the steps inside are taken a quarter of it from the borders.
    """

    def __init__(self, patch: int) -> None:
        self.quarter = patch // 4
        self.border: list[State] = []
        self.inside: list[State] = []

    def add(self, own: State, *, right: State | None, below: State | None) -> None:
        """Measure one window.

        Args:
            own: state (stain, z, y, x), NaN in background.
            right: state of the slab to the right, its first column at least.
            below: state of the slab below, its first row at least.
        """
        for neighbour, axis in ((right, -1), (below, -2)):
            if neighbour is not None:
                turned, other = (np.moveaxis(a, axis, 0) for a in (own, neighbour))
                self.border.append(np.abs(turned[-1] - other[0]).ravel())
                within = turned[-self.quarter] - turned[-self.quarter - 1]
                self.inside.append(np.abs(within).ravel())

    def record(self) -> dict[str, float | int | None]:
        """`border` and `inside`: mean steps in grey levels; `pixels`: pairs across the border.

        A mean is None where there was nothing to measure.
        """
        (border, pixels), (inside, _) = self._mean(self.border), self._mean(self.inside)
        return {"border": border, "inside": inside, "pixels": pixels}

    @staticmethod
    def _mean(parts: list[State]) -> tuple[float | None, int]:
        values = np.concatenate(parts) if parts else np.empty(0)
        values = values[np.isfinite(values)]
        return (round(float(values.mean()) * 127.5, 4) if len(values) else None), len(values)
