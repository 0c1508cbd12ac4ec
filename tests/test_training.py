"""Training learns, goes on where it was killed, and says what it made."""

import csv
import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training_pair import SETTINGS

from teramind.diffusion import window_loss
from teramind.errors import UserError
from teramind.network import load_network
from teramind.network.initial import copy_weights
from teramind.train import SKIPPED_IN_A_ROW, Trainer, TrainSettings, rate_at, train


def losses_on(network, batches):
    network.eval()
    with torch.inference_mode():
        return [window_loss(network, **batch._asdict()).item() for batch in batches]


def test_thirty_steps_lower_the_loss(windows, tiny_spec, tmp_path):
    fixed = [windows(step) for step in range(1000, 1006)]
    settings = dataclasses.replace(SETTINGS, steps=30, learning_rate=1e-2, ema=0.5)
    trainer = Trainer(tiny_spec, windows, settings, tmp_path)
    before = losses_on(trainer.averaged(), fixed)
    after = losses_on(trainer.run(), fixed)
    assert np.mean(after) < 0.95 * np.mean(before)


def test_the_rate_warms_up_and_falls_to_a_twentieth():
    settings = TrainSettings(steps=1000, warmup=100)
    assert rate_at(0, settings) == pytest.approx(0.01)
    assert rate_at(49, settings) == pytest.approx(0.5)
    assert rate_at(100, settings) == pytest.approx(1)
    assert rate_at(550, settings) == pytest.approx(0.525)
    assert rate_at(1000, settings) == pytest.approx(0.05)
    assert rate_at(5000, settings) == pytest.approx(0.05)
    rates = [rate_at(step, settings) for step in range(1001)]
    assert max(rates) == 1
    assert np.diff(rates[:100]).min() > 0 > np.diff(rates[100:]).max()
    assert rate_at(0, TrainSettings(steps=1, warmup=0)) == 1


def run_killed(folder, spec):
    """Train in a process of its own that saves at step 2 and is killed at step 4."""
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parent)]!r}
from training_pair import SETTINGS, blob_windows
from teramind.train import Trainer
from teramind.network import NetworkSpec

folder = Path({str(folder)!r})
windows = blob_windows(folder / "pair", NetworkSpec.from_dict({spec.to_dict()!r}))

class Deadly:
    batch = windows.batch
    armed = False
    def __call__(self, step):
        if self.armed and step == 2:
            trainer.save()
        if self.armed and step == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return windows(step)

trainer = Trainer(windows.spec, Deadly(), SETTINGS, folder / "train")
Deadly.armed = True
trainer.run()
"""
    return subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)


def test_a_killed_run_goes_on_as_if_undisturbed(windows, tiny_spec, tmp_path):
    undisturbed = Trainer(tiny_spec, windows, SETTINGS, tmp_path / "whole")
    expected = undisturbed.run()
    process = run_killed(tmp_path, tiny_spec)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    resumed = Trainer(tiny_spec, windows, SETTINGS, tmp_path / "train")
    assert resumed.step == 2
    network = resumed.run()
    assert [step for step, _ in resumed.losses] == list(range(SETTINGS.steps))
    np.testing.assert_allclose(resumed.losses, undisturbed.losses, rtol=1e-6)
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(network.state_dict()[key], value, rtol=1e-5, atol=1e-6)


def test_a_finished_run_stays_as_it_is(windows, tiny_spec, tmp_path):
    settings = dataclasses.replace(SETTINGS, steps=2)
    first = Trainer(tiny_spec, windows, settings, tmp_path)
    weights = first.run().state_dict()
    again = Trainer(tiny_spec, None, settings, tmp_path)
    assert all(torch.equal(v, weights[k]) for k, v in again.run().state_dict().items())
    assert again.losses == first.losses


def test_another_networks_state_is_refused(windows, tiny_spec, tmp_path):
    Trainer(tiny_spec, windows, SETTINGS, tmp_path).save()
    other = dataclasses.replace(tiny_spec, base=4)
    with pytest.raises(UserError, match=r"state\.pt: belongs to another network"):
        Trainer(other, windows, SETTINGS, tmp_path)


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"words"])
def test_an_unreadable_state_is_refused_in_one_line(windows, tiny_spec, tmp_path, spoil):
    Trainer(tiny_spec, windows, SETTINGS, tmp_path).save()
    state = tmp_path / "state.pt"
    state.write_bytes(spoil(state.read_bytes()))
    with pytest.raises(UserError, match=r"^training state .*not readable.*$") as error:
        Trainer(tiny_spec, windows, SETTINGS, tmp_path)
    assert "\n" not in str(error.value)


class Spoiled:
    """Windows whose image is NaN at some steps."""

    def __init__(self, windows, steps):
        self.windows, self.batch, self.steps = windows, windows.batch, steps

    def __call__(self, step):
        batch = self.windows(step)
        return batch._replace(image=batch.image * torch.nan) if step in self.steps else batch


def test_steps_without_finite_gradients_change_nothing(windows, tiny_spec, tmp_path):
    settings = dataclasses.replace(SETTINGS, steps=2)
    trainer = Trainer(tiny_spec, Spoiled(windows, {0, 1}), settings, tmp_path)
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    averaged = trainer.run().state_dict()
    for key, value in before.items():
        assert torch.equal(trainer.network.state_dict()[key], value)
        assert torch.equal(averaged[key], value)
    assert trainer.step == 2


def test_repeated_steps_without_finite_gradients_stop_the_run(windows, tiny_spec, tmp_path):
    settings = dataclasses.replace(SETTINGS, steps=20)
    bad = {0, 1} | set(range(3, 20))  # two, one good, then all
    trainer = Trainer(tiny_spec, Spoiled(windows, bad), settings, tmp_path)
    with pytest.raises(UserError, match=r"5 steps in a row .* lower train\.learning_rate$"):
        trainer.run()
    assert trainer.step == 2 + SKIPPED_IN_A_ROW


def test_training_leaves_a_checkpoint_that_says_how_it_was_made(windows, tiny_spec, tmp_path):
    checkpoint, table, picture = (tmp_path / n for n in ("c.safetensors", "loss.csv", "loss.png"))
    record = {"data": "two blobs", "steps": 3, "holdout": None}
    train(
        spec=tiny_spec,
        windows=windows,
        settings=dataclasses.replace(SETTINGS, steps=3),
        folder=tmp_path / "train",
        checkpoint=checkpoint,
        loss_table=table,
        loss_picture=picture,
        record=record,
        licence="CC0-1.0",
        dtype=torch.float16,
    )
    network = load_network(checkpoint)
    assert network.spec == dataclasses.replace(tiny_spec, training=record, licence="CC0-1.0")
    state = torch.load(tmp_path / "train" / "state.pt", weights_only=True)
    assert state["spec"] == tiny_spec.to_dict()
    for key, value in state["average"].items():
        stored = value if key in copy_weights(network) else value.half().float()
        assert torch.equal(network.state_dict()[key], stored)
    with table.open(newline="") as file:
        rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    assert rows == state["losses"]
    assert picture.read_bytes().startswith(b"\x89PNG")
