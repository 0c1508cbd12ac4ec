"""What is looked at when training saves: losses, the validation loss, and a piece of tissue.

Only a job that is asked to end saves without a look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from teramind.files import atomic_path
from teramind.network import Network
from teramind.training.calibration import calibration_batches
from teramind.training.dataset import WindowSource
from teramind.training.loss_curve import draw_losses, write_table
from teramind.training.trainer import Trainer

BATCHES = 8
"""Batches of the validation loss."""

Sections = NDArray[np.uint8]
"""Grey levels (c, z, y, x)."""


@dataclass(frozen=True)
class Sample:
    """A piece of tissue: how to generate it, and the real one."""

    generate: Callable[[Network], Sections]
    real: Sections
    stains: tuple[str, ...]


@dataclass
class Watch:
    """Writes tables and pictures of a running training, each whole or not at all.

    Attributes:
        folder: gets loss.csv, loss.png, validation.csv, samples.png and samples/.
        validation: windows of the validation part; None where there is none.
        sample: what to generate and compare; None for nothing.
        board: TensorBoard's writer; None where it is not installed.
        told: step up to which TensorBoard knows the losses.
    """

    folder: Path
    validation: WindowSource | None = None
    sample: Sample | None = None
    board: Any = None
    told: int = 0

    def __call__(self, trainer: Trainer) -> None:
        """Look at the averaged network as it is now."""
        network = trainer.averaged().to(trainer.device)
        if self.validation and trainer.step not in dict(trainer.validation):
            trainer.validation.append((trainer.step, self._validation_loss(trainer, network)))
        if trainer.validation:
            write_table(trainer.validation, self.folder / "validation.csv")
        write_table(trainer.losses, self.folder / "loss.csv")
        draw_losses(trainer.losses, trainer.validation, self.folder / "loss.png")
        if self.sample:
            self._draw(self.sample, network, trainer.step)
        if self.board:
            self._tell_board(trainer)

    def _validation_loss(self, trainer: Trainer, network: Network) -> float:
        """Mean loss on the same windows, noise and timesteps every time."""
        assert self.validation is not None
        batches = calibration_batches(self.validation, BATCHES, trainer.timesteps)
        with torch.inference_mode():
            found = [trainer.loss(network, batch).item() for batch in batches]
        return sum(found) / len(found)

    def _draw(self, sample: Sample, network: Network, step: int) -> None:
        pairs = sample.generate(network), sample.real
        for path in (self.folder / "samples" / f"step_{step:08d}.png", self.folder / "samples.png"):
            draw_sample(*pairs, sample.stains, f"step {step}", path)

    def _tell_board(self, trainer: Trainer) -> None:
        for step, loss in trainer.losses[max(self.told, trainer.first) :]:
            self.board.add_scalar("loss/training", loss, step)
        if trainer.validation:
            self.board.add_scalar("loss/validation", trainer.validation[-1][1], trainer.step)
        picture = self.folder / "samples.png"
        if picture.exists():
            import matplotlib.image

            pixels = matplotlib.image.imread(picture)
            self.board.add_image("samples", pixels[..., :3], trainer.step, dataformats="HWC")
        self.board.flush()
        self.told = trainer.step


def draw_sample(
    generated: Sections, real: Sections, stains: tuple[str, ...], title: str, path: Path
) -> None:
    """Draw sections (c, z, y, x) above the real ones, every stain at one scale, as PNG."""
    from matplotlib.figure import Figure

    count, sections, height, width = real.shape
    columns = count * sections
    size = 2.2
    figure = Figure(figsize=(size * columns, 2 * size * height / width + 0.7), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for row, (name, images) in enumerate((("generated", generated), ("real", real))):
        for c, stain in enumerate(stains):
            brightest = max(int(real[c].max()), 1)
            for z in range(sections):
                axis = axes[row, c * sections + z]
                axis.imshow(images[c, z], cmap="gray", vmin=0, vmax=brightest)
                axis.set(xticks=[], yticks=[])
                axis.set_ylabel(name if c == z == 0 else "")
                if row == 0:
                    axis.set_title(f"{stain}, section {z}", fontsize=9)
    figure.suptitle(title, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png", metadata={"Software": None})


def tensorboard(folder: Path) -> Any:
    """A TensorBoard writer into `folder`, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
