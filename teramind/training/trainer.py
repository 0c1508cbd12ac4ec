"""Learn a checkpoint from paired images and expression, in one process or in many.

A step's windows are a pure function of (seed, step). They are computed in pieces, and dropout is
seeded by step and piece. So a run that was killed and started again sees the same sequence, and so
do any number of processes that together have the same number of pieces.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from teramind.config import Train
from teramind.errors import UserError
from teramind.network import Network, NetworkSpec
from teramind.network.initial import carries_copy, fix_copy
from teramind.network.precision import set_precision
from teramind.training.ahead import cut_ahead
from teramind.training.average import Average
from teramind.training.calibration import (
    fingerprint,
    image_spread,
    set_starting_weights,
    weights_digest,
)
from teramind.training.dataset import Batch, WindowSource
from teramind.training.interruption import interruption
from teramind.training.loss_curve import progress_line
from teramind.training.objective import OUTSIDE, balanced_weight, window_loss, worth_learning
from teramind.training.parallel import Team
from teramind.training.rate import rate_at
from teramind.training.resume import read_state, write_state

LASTING = (
    "learning_rate",
    "schedule",
    "warmup",
    "clip",
    "precision",
    "ema",
    "loss",
    "borders",
    "dropout",
    "seed",
)
"""Settings that the weights depend on from the first step on; a run goes on with the same."""

SKIPPED_IN_A_ROW = 5
"""Consecutive steps with non-finite gradients after which training stops."""

HALVINGS = 16
"""How often float16 may halve the scale of its gradients, 65536 at first, on top of that."""


class Trainer:
    """One training run: network, optimiser, average, step count and losses.

    Args:
        spec: what to train.
        windows: those of each step.
        settings: how.
        folder: where the resumable states live.
        start: network whose weights to start from; by default those of `training.calibration`.
        files: what tells the data set from others beside some of its windows; see `sizes_digest`.
        team: the processes that train together.
        watch: called by the first process whenever a state is about to be saved, unless the job is
            asked to end.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        windows: WindowSource,
        settings: Train,
        folder: Path,
        *,
        start: Network | None = None,
        files: str = "",
        team: Team | None = None,
        watch: Callable[[Trainer], None] | None = None,
    ) -> None:
        self.spec, self.windows, self.watch = spec, windows, watch
        self.settings, self.folder, self.team = settings, folder, team or Team()
        self.device = self.team.device
        self.pieces = self._shares()
        self.same = {
            "network": spec.to_dict(),
            "data set": fingerprint(windows) + files,
            "start": weights_digest(start) if start else "",
            **{f"train.{key}": getattr(settings, key) for key in LASTING},
        }
        saved = read_state(folder, self.same, self.device)
        spread = saved["spread"] if saved else image_spread(windows, spec.stains)
        self.spread = spread.to(self.device)
        given = saved.get("weights") or (start.state_dict() if start else None)
        self.network = self._network(given).to(self.device)
        self.team.hand_out([self.spread, *self.network.state_dict().values()])
        if carries_copy(self.network):
            fix_copy(self.network)
        set_precision(self.network, self.dtype)
        self.average = Average(self.network, settings.ema)
        self.trained = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(
            self.trained, lr=settings.learning_rate, fused=self.device.type == "cuda"
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.step, self.skipped, self.lost = 0, 0, 0
        self.losses: list[tuple[int, float]] = []
        self.validation: list[tuple[int, float]] = []
        folder.mkdir(parents=True, exist_ok=True)
        if saved:
            self._resume(saved)
        self.first = self.step

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.settings.steps

    @property
    def dtype(self) -> torch.dtype:
        """What residual blocks multiply in; all else is float32."""
        named = {"auto": "bfloat16" if self.device.type == "cuda" else "float32"}
        asked = self.settings.precision
        found: torch.dtype = getattr(torch, named.get(asked, asked))
        return found

    def run(self) -> Network:
        """Train to the last step, or until the job has to end; return the averaged network.

        Raises:
            UserError: when the job is asked to end before the last step, windows cannot be read, or
                too many gradients in a row are not finite.
        """
        saved = started = time.monotonic()
        interrupted = False
        self.network.train()
        with interruption(self.settings.minutes) as end, closing(self._pieces_to_come()) as pieces:
            while not (self.finished or interrupted):
                interrupted = self._train_step(next(pieces), end.due)
                now = time.monotonic()
                if self.step % 20 == 0:
                    self._report((now - started) / (self.step - self.first))
                if now - saved > 60 * self.settings.save_minutes and not self.finished:
                    self._look_and_save()
                    saved = time.monotonic()  # a look may take longer than save_minutes
            if self.finished or not end.asked:
                self._look_and_save()
            elif self.team.leads:  # whoever sent SIGTERM soon kills
                self.save()
            self.team.wait()
            if end.asked and not self.finished:
                raise UserError(
                    f"training: asked to end at step {self.step} of {self.settings.steps}; all is "
                    "saved, the same command goes on"
                )
        return self.averaged()

    def averaged(self) -> Network:
        """A copy of the network that carries the averaged weights."""
        network = Network(self.spec)
        network.load_state_dict(self.average.weights)
        return network.eval()

    def save(self) -> None:
        """Write the resumable state, whole or not at all."""
        state = self.same | {
            "step": self.step,
            "skipped": self.skipped,
            "lost": self.lost,
            "losses": self.losses,
            "validation": self.validation,
            "spread": self.spread,
            "weights": self.network.state_dict(),
            "average": self.average.weights,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        write_state(self.folder, state, keep=self.settings.keep)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        """Training loss of windows at their timesteps under the settings."""
        moved = Batch(*(part.to(self.device, non_blocking=True) for part in batch))
        published = self.settings.loss == "published"
        return window_loss(
            network,
            **moved._asdict(),
            outside=0.0 if published else OUTSIDE,
            aligned=published,
            weight=None if published else balanced_weight(moved.t, self.spread),
            borders=0.0 if published else self.settings.borders,
        )

    def timesteps(self, t: Tensor) -> Tensor:
        """Uniform timesteps -> those that are worth learning; as they are if published."""
        return t if self.settings.loss == "published" else worth_learning(t)

    def _shares(self) -> range:
        """Numbers of the pieces of a step that this process computes."""
        count, batch = self.team.size * self.settings.accumulate, self.windows.batch
        if batch % count:
            raise UserError(
                f"training: {batch} windows a step cannot be shared by {self.team.size} processes "
                f"x {self.settings.accumulate} pieces; train.batch must be a multiple of {count}"
            )
        return range(self.team.rank, count, self.team.size)

    def _cut(self, step: int) -> list[Batch]:
        """This process's pieces of a step's windows."""
        count = self.team.size * self.settings.accumulate
        if count == 1:
            return [self.windows(step)]
        size = self.windows.batch // count
        return [self.windows(step, slice(k * size, (k + 1) * size)) for k in self.pieces]

    def _pieces_to_come(self) -> Generator[list[Batch]]:
        """This process's pieces of every step to come; a GPU's are cut by its CPU threads."""
        steps = range(self.step, self.settings.steps)
        if self.device.type == "cuda":
            yield from cut_ahead(self._cut, steps, workers=torch.get_num_threads())
        else:
            yield from map(self._cut, steps)

    def _network(self, weights: dict[str, Tensor] | None) -> Network:
        """The network on the CPU; without `weights`, the first process measures where to start."""
        torch.manual_seed(self.settings.seed)
        network = Network(self.spec)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = self.settings.dropout
        if weights:
            network.load_state_dict(weights)
        elif self.team.leads:
            set_starting_weights(network, self.windows, self.spread.cpu(), self.device)
        return network

    def _resume(self, state: dict[str, Any]) -> None:
        self.average.weights = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.step, self.skipped, self.lost = state["step"], state["skipped"], state["lost"]
        self.losses = [tuple(row) for row in state["losses"]]
        self.validation = [tuple(row) for row in state["validation"]]

    def _train_step(self, batches: list[Batch], end: bool) -> bool:
        """Take one step; return whether any process has to end."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * rate_at(self.step, self.settings)
        self.optimiser.zero_grad(set_to_none=True)
        total, ends = torch.zeros(1, device=self.device), torch.full((1,), float(end))
        ends, count = ends.to(self.device), self.team.size * self.settings.accumulate
        for piece, batch in zip(self.pieces, batches, strict=True):
            torch.manual_seed((self.settings.seed << 32) + (piece << 24) + self.step)  # of dropout
            loss = self.loss(self.network, batch._replace(t=self.timesteps(batch.t))) / count
            self.scaler.scale(loss).backward()
            total += loss.detach()
        gradients = [p.grad for p in self.trained if p.grad is not None]
        self.team.add_up([*gradients, total, ends])
        self._update()
        self.losses.append((self.step, total.item()))
        self.step += 1
        return ends.item() > 0

    def _update(self) -> None:
        """Move the weights along the gradients unless these are not finite."""
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.trained, self.settings.clip)
        if torch.isfinite(norm):
            self.scaler.step(self.optimiser)
            self.average.update(self.network, self.step)
            self.skipped = 0
        else:
            self.skipped, self.lost = self.skipped + 1, self.lost + 1
        self.scaler.update()
        if self.skipped >= SKIPPED_IN_A_ROW + HALVINGS * self.scaler.is_enabled():
            raise UserError(
                f"training: {self.skipped} steps in a row up to step {self.step} had non-finite "
                "gradients; lower train.learning_rate"
            )

    def _look_and_save(self) -> None:
        if not self.team.leads:
            return
        if self.watch:
            self.watch(self)
        self.save()

    def _report(self, seconds_per_step: float) -> None:
        if not self.team.leads:
            return
        line = progress_line(self.losses, self.settings.steps, self.windows.batch, seconds_per_step)
        skipped = f"  {self.lost} steps skipped" if self.lost else ""
        print(line + skipped, file=sys.stderr, flush=True)
