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


def progress_line(
    losses: list[tuple[int, float]], steps: int, batch: int, seconds_per_step: float
) -> str:
    """Where training stands after the last of `losses`, how fast it is, and how long it takes."""
    step, recent = losses[-1][0] + 1, [loss for _, loss in losses[-100:]]
    left = (steps - step) * seconds_per_step
    return (
        f"step {step}/{steps}  loss {sum(recent) / len(recent):.4f}  "
        f"{batch / seconds_per_step:.2f} windows/s  {left / 60:.0f} min left"
    )


def write_table(losses: list[tuple[int, float]], table: Path) -> None:
    """Write (step, loss) rows as CSV."""
    with atomic_path(table) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss"])
        writer.writerows(losses)


def draw_losses(
    losses: list[tuple[int, float]], validation: list[tuple[int, float]], picture: Path
) -> None:
    """Draw the loss of every step, its running mean and the validation loss as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*losses, strict=True), color="0.85", linewidth=0.5, label="each step")
    curve = list(smoothed(losses))
    if curve:
        axes.plot(*zip(*curve, strict=True), color="tab:blue", label="mean of 100 steps")
    if validation:
        rows = zip(*validation, strict=True)
        axes.plot(*rows, "o-", color="tab:orange", markersize=3, label="validation part, average")
    axes.set(xlabel="training step", ylabel="loss", yscale="log")
    axes.legend()
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
