"""Learn a checkpoint from paired images and expression, in one process.

Every step's batch is a pure function of (seed, step), so a run that was killed and started again
sees the same sequence.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from teramind.dataset import Batch, TrainingWindows
from teramind.diffusion import OUTSIDE, balanced_weight, window_loss, worth_learning
from teramind.errors import UserError
from teramind.files import atomic_path
from teramind.losses import write_losses
from teramind.network import Network, NetworkSpec, save_network
from teramind.network.initial import copy_weights, fix_copy, has_room
from teramind.start import image_spread, set_starting_weights

SKIPPED_IN_A_ROW = 5
"""Consecutive steps with non-finite gradients after which training stops."""


@dataclass(frozen=True)
class TrainSettings:
    """How to train; see the `train` section of the config for the meaning of each."""

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 100
    clip: float = 1.0
    ema: float = 0.999
    loss: str = "shifted"
    dropout: float = 0.1
    seed: int = 0
    save_minutes: float = 5.0


class Average:
    """Exponential moving average of a network's weights, warmed up over the first steps."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in network.state_dict().items()}

    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the current weights after `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in network.state_dict().items():
            self.weights[key].lerp_(value, 1 - decay)


class Trainer:
    """One training run: network, optimiser, average, step count and losses.

    Args:
        spec: what to train.
        windows: batch of each step.
        settings: how.
        folder: where the resumable state and the loss table live.
    """

    def __init__(
        self, spec: NetworkSpec, windows: TrainingWindows, settings: TrainSettings, folder: Path
    ) -> None:
        self.spec, self.windows = spec, windows
        self.settings, self.folder = settings, folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        saved = self._read_state()
        self.spread = (saved["spread"] if saved else image_spread(windows, len(spec.stains))).to(
            self.device
        )
        self.network = self._start(fresh=not saved).to(self.device)
        self.average = Average(self.network, settings.ema)
        self.optimiser = torch.optim.Adam(self._trained(), lr=settings.learning_rate)
        self.step, self.skipped = 0, 0
        self.losses: list[tuple[int, float]] = []
        folder.mkdir(parents=True, exist_ok=True)
        if saved:
            self._resume(saved)

    @property
    def state_path(self) -> Path:
        """The resumable state."""
        return self.folder / "state.pt"

    def run(self) -> Network:
        """Train to the last step and return the averaged network."""
        saved = started = time.monotonic()
        first = self.step
        self.network.train()
        while self.step < self.settings.steps:
            self._train_step(self.windows(self.step))
            now = time.monotonic()
            if self.step % 20 == 0:
                self._report((now - started) / (self.step - first))
            if now - saved > 60 * self.settings.save_minutes:
                self.save()
                saved = now
        self.save()
        return self.averaged()

    def averaged(self) -> Network:
        """A copy of the network that carries the averaged weights."""
        network = Network(self.spec)
        network.load_state_dict(self.average.weights)
        return network.eval()

    def save(self) -> None:
        """Write the resumable state, whole or not at all."""
        state = {
            "step": self.step,
            "skipped": self.skipped,
            "losses": self.losses,
            "spec": self.spec.to_dict(),
            "spread": self.spread,
            "network": self.network.state_dict(),
            "average": self.average.weights,
            "optimiser": self.optimiser.state_dict(),
        }
        with atomic_path(self.state_path) as temporary:
            torch.save(state, temporary)

    def _start(self, *, fresh: bool) -> Network:
        """The network on the CPU, at its starting weights if it is `fresh`."""
        torch.manual_seed(self.settings.seed)
        network = Network(self.spec)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = self.settings.dropout
        if fresh:
            set_starting_weights(network, self.windows, self.spread)
        if has_room(network):
            fix_copy(network)
        return network

    def _trained(self) -> list[nn.Parameter]:
        """The parameters that are not fixed from the start."""
        return [p for p in self.network.parameters() if p.requires_grad]

    def _read_state(self) -> dict[str, Any]:
        """The saved state of this network, empty if there is none."""
        if not self.state_path.exists():
            return {}
        try:
            state: dict[str, Any] = torch.load(
                self.state_path, map_location=self.device, weights_only=True
            )
            spec, _ = state["spec"], state["spread"]
        except Exception as error:  # torch raises many kinds on broken files
            line = str(error).partition("\n")[0]
            raise UserError(
                f"training state {self.state_path}: not readable ({line}); remove it to start anew"
            ) from None
        if spec != self.spec.to_dict():
            raise UserError(
                f"training state {self.state_path}: belongs to another network; "
                "train into another folder or remove it"
            )
        return state

    def _resume(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.average.weights = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.skipped = state["step"], state["skipped"]
        self.losses = [tuple(row) for row in state["losses"]]

    def _train_step(self, batch: Batch) -> None:
        torch.manual_seed((self.settings.seed << 32) + self.step)  # of the dropout
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * rate_at(self.step, self.settings)
        loss = self._loss(batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._trained(), self.settings.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
            self.average.update(self.network, self.step)
            self.skipped = 0
        else:
            self.skipped += 1
        if self.skipped >= SKIPPED_IN_A_ROW:
            raise UserError(
                f"training: {self.skipped} steps in a row up to step {self.step} had non-finite "
                "gradients; lower train.learning_rate"
            )
        self.losses.append((self.step, loss.item()))
        self.step += 1

    def _loss(self, batch: Batch) -> Tensor:
        published = self.settings.loss == "published"
        if not published:
            batch = batch._replace(t=worth_learning(batch.t))
        moved = Batch(*(part.to(self.device) for part in batch))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return window_loss(
                self.network,
                **moved._asdict(),
                outside=0.0 if published else OUTSIDE,
                aligned=published,
                weight=None if published else balanced_weight(moved.t, self.spread),
            )

    def _report(self, seconds_per_step: float) -> None:
        recent = [loss for _, loss in self.losses[-100:]]
        left = (self.settings.steps - self.step) * seconds_per_step
        print(
            f"step {self.step}/{self.settings.steps}  loss {sum(recent) / len(recent):.4f}  "
            f"{self.windows.batch / seconds_per_step:.2f} windows/s  {left / 60:.0f} min left",
            file=sys.stderr,
            flush=True,
        )


def rate_at(step: int, settings: TrainSettings) -> float:
    """Learning rate at `step` as a part of the full one: linear warm-up, then cosine to 5 %."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return 0.05 + 0.95 * (1 + math.cos(math.pi * min(progress, 1))) / 2


def train(
    *,
    spec: NetworkSpec,
    windows: TrainingWindows,
    settings: TrainSettings,
    folder: Path,
    checkpoint: Path,
    loss_table: Path,
    loss_picture: Path,
    record: dict[str, Any],
    licence: str | None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Train (or go on training) and write the checkpoint, the loss table and its picture.

    Args:
        spec: what to train.
        windows: batch of each step.
        settings: how.
        folder: where the resumable state lives.
        checkpoint: safetensors to write.
        loss_table: CSV to write.
        loss_picture: PNG to write.
        record: how the weights were made, JSON-ready; the checkpoint's `spec.training`.
        licence: of the weights; the checkpoint's `spec.licence`.
        dtype: how the weights are stored.

    Raises:
        UserError: when the folder holds the state of another network, or training diverges.
    """
    trainer = Trainer(spec, windows, settings, folder)
    network = trainer.run()
    write_losses(trainer.losses, loss_table, loss_picture)
    network.spec = dataclasses.replace(spec, training=record, licence=licence)
    save_network(network, checkpoint, dtype=dtype, exact=copy_weights(network))
