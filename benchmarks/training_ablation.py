"""What learns most in the same time: window, loss, weights of timesteps, rate, average, size.

python benchmarks/training_ablation.py --cpu-seconds 600

Every arm trains on the same phantom, in a process of its own on one thread, for the same seconds of
CPU time, so that a busy machine does not change the table. Then its averaged weights are judged
alike: the mean loss of the shifted output with `balanced_weight` on fixed validation windows, noise
and timesteps, and the squared steps of the error across borders of patches, weighed the same way.
Lower is better; a loss of 1 is about the best linear estimate from a pixel alone. The learning rate
is constant after a warm-up of 20 steps, for nobody knows how many steps an arm will take.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from teramind.config import Train
from teramind.expression.raster import Raster
from teramind.expression.raster_writer import RasterWriter
from teramind.geometry import Rect
from teramind.network import Network, NetworkSpec
from teramind.phantom import make_phantom
from teramind.split import Part, random_split
from teramind.training.calibration import calibration_batches
from teramind.training.dataset import Batch, PairedImages, TrainingWindows
from teramind.training.objective import alpha_at, balanced_weight, window_loss
from teramind.training.trainer import Trainer

SIZE, PIXEL_UM, SPACING_UM = 768, 0.6, 10.0
STAINS = ("DAPI", "PolyT")
ARMS: dict[str, dict[str, object]] = {
    "as it is (3 x 3, shifted, balanced, borders 1)": {},
    "borders 0": {"borders": 0.0},
    "borders 3": {"borders": 3.0},
    "window 2 x 2": {"edge": 2},
    "window 4 x 4": {"edge": 4},
    "published loss, 2 x 2": {"edge": 2, "loss": "published"},
    "published loss": {"loss": "published"},
    "min-SNR weights": {"weight": "min-snr"},
    "learning rate x 1/3": {"learning_rate": 1e-3 / 3},
    "learning rate x 3": {"learning_rate": 3e-3},
    "average 0.95": {"ema": 0.95},
    "base 10": {"base": 10},
}
GAMMA = 5.0
"""Largest signal-to-noise ratio of the min-SNR weights (arXiv 2303.09556)."""


class MinSnrTrainer(Trainer):
    """Weighs the squared error of the noise by min(SNR, gamma) / SNR."""

    def loss(self, network: Network, batch: Batch) -> Tensor:
        """Training loss of windows."""
        alpha = alpha_at(batch.t).float()
        snr = alpha / (1 - alpha)
        weight = (snr.clamp(max=GAMMA) / snr)[:, None].expand(-1, len(STAINS))
        return window_loss(network, **batch._asdict(), weight=weight)


def make_data(folder: Path, size: int = SIZE, pixel_um: float = PIXEL_UM) -> None:
    """A phantom of `size` pixels: images as an array on disk, molecules as a raster."""
    phantom = make_phantom(
        height=size,
        width=size,
        sections=4,
        pixel_size_um=pixel_um,
        section_spacing_um=SPACING_UM,
        seed=1,
    )
    np.save(folder / "images.npy", phantom.images)
    table, plane = phantom.molecules, Rect(0, 0, size, size)
    y, x = ((table[axis].to_numpy() / pixel_um).astype(int) for axis in ("y_um", "x_um"))
    gene = pd.Categorical(table["gene"], categories=phantom.panel).codes.astype(int)
    with RasterWriter(
        folder / "raster", panel=phantom.panel, sections=4, extent=plane, pixel_size_um=pixel_um
    ) as writer:
        section, count = table["section"].to_numpy(), np.ones(len(table), int)
        writer.add(section=section, y=y, x=x, gene=gene, count=count)


def train_arm(folder: Path, seconds: float, **settings: object) -> dict[str, float]:
    """Train one arm for seconds of CPU time; return how far it came."""
    torch.set_num_threads(1)
    arm = Arm(folder, **settings)
    judged = arm.windows("validation", edge=3, seed=1)
    with tempfile.TemporaryDirectory() as states:
        trainer = arm.trainer(Path(states))
        first = judge(trainer.averaged(), judged, trainer.spread)
        used = train(trainer, seconds)
    last = judge(trainer.averaged(), judged, trainer.spread)
    return {
        "steps": trainer.step,
        "seconds": used,
        "first": first[0],
        "last": last[0],
        "borders": last[1],
    }


@dataclass
class Arm:
    """What an arm learns from and how; `edge` is that of its windows in patches."""

    folder: Path
    edge: int = 3
    base: int = 6
    patch: int = 32
    loss: str = "shifted"
    weight: str = "balanced"
    borders: float = 1.0
    learning_rate: float = 1e-3
    ema: float = 0.99

    def __post_init__(self) -> None:
        raster = Raster.open(self.folder / "raster")
        self.pairs = PairedImages(np.load(self.folder / "images.npy", mmap_mode="r"), raster)
        genes = len(raster.panel)
        self.spec = NetworkSpec(
            self.patch,
            4,
            STAINS,
            genes,
            self.base,
            embed=64,
            panel=raster.panel,
            pixel_size_um=raster.pixel_size_um,
            section_spacing_um=SPACING_UM,
        )
        self.split = random_split(
            raster.extent, block=192, guard=32, validation=0.2, test=0, seed=0
        )

    def windows(self, part: Part, *, edge: int, seed: int) -> TrainingWindows:
        """Windows of a part of the plane, one a step."""
        closed = self.split.closed(part)
        return TrainingWindows(self.pairs, self.spec, edge=edge, batch=1, seed=seed, closed=closed)

    def trainer(self, states: Path) -> Trainer:
        """A trainer at its first step."""
        settings = Train(
            steps=10**6,
            learning_rate=self.learning_rate,
            schedule="constant",
            warmup=20,
            ema=self.ema,
            loss=self.loss,
            borders=self.borders,
            dropout=0,
        )
        kind = MinSnrTrainer if self.weight == "min-snr" else Trainer
        return kind(self.spec, self.windows("train", edge=self.edge, seed=0), settings, states)


def train(trainer: Trainer, seconds: float) -> float:
    """Train for seconds of CPU time; return how many it took."""
    trainer.network.train()
    started = time.process_time()
    while time.process_time() - started < seconds:
        trainer._train_step(trainer._cut(trainer.step), False)
    return time.process_time() - started


@torch.inference_mode()
def judge(network: Network, windows: TrainingWindows, spread: Tensor) -> tuple[float, float]:
    """Mean balanced loss, and what borders add to it, on fixed windows, noise and timesteps."""
    found = []
    for batch in calibration_batches(windows):
        weight = balanced_weight(batch.t, spread)
        losses = (
            window_loss(network, **batch._asdict(), weight=weight, borders=borders).item()
            for borders in (0.0, 1.0)
        )
        found.append([*losses])
    inner, both = np.mean(found, 0)
    return float(inner), float(both - inner)


def main() -> None:
    """Make the data, train the arms one after the other, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu-seconds", type=float, default=600, help="of every arm")
    parser.add_argument("--arm", nargs=2, metavar=("FOLDER", "NAME"))
    asked = parser.parse_args()
    if asked.arm:
        folder, name = asked.arm
        print(json.dumps(train_arm(Path(folder), asked.cpu_seconds, **ARMS[name])))
        return
    with tempfile.TemporaryDirectory() as name:
        make_data(Path(name))
        print("| arm | steps | CPU s per step | loss at the start | at the end | border steps |")
        print("| --- | --- | --- | --- | --- | --- |", flush=True)
        for arm in ARMS:
            command = [sys.executable, __file__, "--cpu-seconds", str(asked.cpu_seconds)]
            run = subprocess.run([*command, "--arm", name, arm], check=True, capture_output=True)
            found = json.loads(run.stdout)
            each = found["seconds"] / found["steps"]
            print(
                f"| {arm} | {found['steps']} | {each:.2f} | {found['first']:.4f} | "
                f"{found['last']:.4f} | {found['borders']:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
