"""The training, validation and test part of the plane, drawn over the tissue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from teramind.files import atomic_path
from teramind.geometry import Rect
from teramind.report.pictures import averaged, display_limit
from teramind.split import Split

LONGEST = 700
"""Longest edge of the tissue's picture in its own pixels."""

COLOURS = {"training": "tab:blue", "validation": "tab:orange", "test": "tab:red"}


def write_split_picture(split: Split, images: zarr.Array[Any], path: Path) -> None:
    """Draw the parts over the first stain of the middle section, as PNG.

    Memory: a band of the section and the picture.

    Args:
        split: the parts.
        images: (c, z, y, x) uint8; pixel (0, 0) is the plane's.
        path: file to write.
    """
    height, width = images.shape[2:]
    factor = max(-(-max(height, width) // LONGEST), 1)
    middle = images.shape[1] // 2

    def rows(top: int, bottom: int) -> np.ndarray:
        return np.asarray(images[0, middle, top:bottom])

    picture = averaged(rows, height, factor)
    figure = Figure(figsize=(6, 6 * min(max(height / width, 0.4), 2)), layout="constrained")
    axes = figure.subplots()
    extent = (0, factor * picture.shape[1], factor * picture.shape[0], 0)
    axes.imshow(picture, cmap="gray", vmax=display_limit([picture]), extent=extent)
    boxes = {
        "training": split.train,
        "validation": split.validation,
        "test": (split.test,) if split.test else (),
    }
    for part, rects in boxes.items():
        for rect in rects:
            axes.add_patch(_box(rect, COLOURS[part]))
    axes.set(xlim=(0, width), ylim=(height, 0), xlabel="x, pixels", ylabel="y, pixels")
    figure.legend(
        handles=[
            Patch(color=COLOURS[part], alpha=0.6, label=part) for part in boxes if boxes[part]
        ],
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", metadata={"Software": None})


def _box(rect: Rect, colour: str) -> Rectangle:
    return Rectangle(
        (rect.x, rect.y),
        rect.width,
        rect.height,
        facecolor=(colour, 0.25),
        edgecolor=colour,
        linewidth=1.2,
    )
