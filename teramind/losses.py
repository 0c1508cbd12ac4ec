"""The losses of a training run as a table and a picture."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from teramind.files import atomic_path


def smoothed(losses: list[tuple[int, float]], width: int = 100) -> Iterator[tuple[int, float]]:
    """Running mean of the loss over `width` steps."""
    for end in range(width, len(losses) + 1, max(width // 4, 1)):
        rows = losses[end - width : end]
        yield rows[-1][0], sum(loss for _, loss in rows) / width


def write_losses(losses: list[tuple[int, float]], table: Path, picture: Path) -> None:
    """Write the loss of every step as CSV and its running mean as PNG."""
    from matplotlib.figure import Figure

    with atomic_path(table) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss"])
        writer.writerows(losses)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*losses, strict=True), color="0.85", linewidth=0.5, label="each step")
    curve = list(smoothed(losses))
    if curve:
        axes.plot(*zip(*curve, strict=True), color="tab:blue", label="mean of 100 steps")
    axes.set(xlabel="training step", ylabel="training loss", yscale="log")
    axes.legend()
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
