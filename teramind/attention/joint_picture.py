"""The joint plot of a pathway: expression against attention, with margins and regressions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from teramind.attention.joint import STEP, Joint
from teramind.files import atomic_path


def draw_joint(
    joint: Joint, regressions: Mapping[str, Mapping[str, Any]], path: Path, *, title: str
) -> None:
    """Draw the places of every gene in its colour, its regression line, and both margins as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.subplot_mosaic(
        [["top", "."], ["main", "right"]], width_ratios=[4, 1], height_ratios=[1, 4]
    )
    main, top, right = axes["main"], axes["top"], axes["right"]
    x_end, y_end = (_end(joint.densities.sum((0, axis))) for axis in (2, 1))
    for g, gene in enumerate(joint.genes):
        colour, cells = f"#{joint.colours[g]}", joint.densities[g]
        _places(main, cells, colour)
        _line(main, gene, regressions[gene], colour, x_end)
        x = cells.sum(1)[: round(x_end / STEP)]
        top.stairs(x, np.arange(len(x) + 1) * STEP, color=colour, fill=True, alpha=0.5)
    y = joint.densities[0].sum(0)[: round(y_end / STEP)]  # the same places for every gene
    right.stairs(y, np.arange(len(y) + 1) * STEP, color="0.8", orientation="horizontal", fill=True)
    main.set(
        xlim=(0, x_end),
        ylim=(0, y_end),
        xlabel="expression, log₂(molecules per bin + 1)",
        ylabel="attention, log₂(A·N·G + 1), genes added up",
        facecolor="0.12",
    )
    top.set(xlim=(0, x_end), yticks=[], xticks=[], title=title)
    right.set(ylim=(0, y_end), xticks=[], yticks=[])
    for margin in (top, right):
        margin.set_facecolor("0.12")
    main.legend(fontsize=7, loc="upper left", labelcolor="white", facecolor="0.2")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png", metadata={"Software": None})


def _places(axes: Any, cells: Any, colour: str) -> None:
    """Dots whose strength is the number of places in their cell."""
    from matplotlib.colors import to_rgb

    x, y = np.nonzero(cells)
    number = cells[x, y]
    strength = 0.15 + 0.85 * np.log1p(number) / np.log1p(max(number.max(initial=1), 2))
    colours = np.column_stack([np.tile(to_rgb(colour), (len(x), 1)), strength])
    axes.scatter((x + 0.5) * STEP, (y + 0.5) * STEP, c=colours, s=14, linewidths=0)


def _line(axes: Any, gene: str, found: Mapping[str, Any], colour: str, x_end: float) -> None:
    if found["slope"] is None:
        axes.plot([], [], color=colour, label=f"{gene}: no regression")
        return
    interval = ""
    if found["slope_low"] is not None:
        interval = f" ({found['slope_low']:.2f} to {found['slope_high']:.2f})"
    r = "" if found["r"] is None else f", r = {found['r']:.2f}"
    axes.axline(
        (0, found["intercept"]),
        slope=found["slope"],
        color=colour,
        linewidth=2.5,
        label=f"{gene}: slope {found['slope']:.2f}{interval}{r}",
    )


def _end(cells: Any) -> float:
    """End of an axis: the last cell that is used, and a little."""
    used = np.flatnonzero(cells)
    return STEP * (int(used[-1]) + 4) if len(used) else 1.0
