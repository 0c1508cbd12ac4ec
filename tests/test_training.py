"""Training learns, goes on where it was killed, and says what it made."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training_pair import SETTINGS, blob_windows

from teramind.config import Train
from teramind.errors import UserError
from teramind.network import Network
from teramind.training.ahead import cut_ahead
from teramind.training.dataset import ALL, Batch
from teramind.training.objective import window_loss
from teramind.training.rate import rate_at
from teramind.training.resume import saved_states
from teramind.training.trainer import LASTING, SKIPPED_IN_A_ROW, Trainer


def losses_on(network, batches):
    network.eval()
    with torch.inference_mode():
        return [window_loss(network, **batch._asdict()).item() for batch in batches]


def test_thirty_steps_lower_the_loss(windows, tiny_spec, tmp_path):
    fixed = [windows(step) for step in range(1000, 1006)]
    settings = SETTINGS.model_copy(update={"steps": 30, "learning_rate": 1e-2, "ema": 0.5})
    trainer = Trainer(tiny_spec, windows, settings, tmp_path)
    before = losses_on(trainer.averaged(), fixed)
    after = losses_on(trainer.run(), fixed)
    assert np.mean(after) < 0.95 * np.mean(before)


def test_a_constant_rate_warms_up_and_stays():
    settings = Train(steps=10, warmup=4, schedule="constant")
    assert [rate_at(step, settings) for step in range(8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_the_rate_warms_up_and_falls_to_a_twentieth():
    settings = Train(steps=1000, warmup=100)
    assert rate_at(0, settings) == pytest.approx(0.01)
    assert rate_at(49, settings) == pytest.approx(0.5)
    assert rate_at(100, settings) == pytest.approx(1)
    assert rate_at(550, settings) == pytest.approx(0.525)
    assert rate_at(1000, settings) == pytest.approx(0.05)
    assert rate_at(5000, settings) == pytest.approx(0.05)
    rates = [rate_at(step, settings) for step in range(1001)]
    assert max(rates) == 1
    assert np.diff(rates[:100]).min() > 0 > np.diff(rates[100:]).max()
    assert rate_at(0, Train(steps=1, warmup=0)) == 1


def run_killed(folder, spec):
    """Train in a process of its own that saves at step 2 and is killed at step 4."""
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parent)]!r}
from training_pair import SETTINGS, blob_windows
from teramind.training.dataset import ALL
from teramind.training.trainer import Trainer
from teramind.network import NetworkSpec

folder = Path({str(folder)!r})
windows = blob_windows(folder / "pair", NetworkSpec.from_dict({spec.to_dict()!r}))

class Deadly:
    batch = windows.batch
    armed = False
    def __call__(self, step, share=ALL):
        if self.armed and step == 2:
            trainer.save()
        if self.armed and step == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return windows(step, share)

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


class Stopping:
    """Windows that send the process a SIGTERM at a step, as a scheduler does."""

    def __init__(self, windows, step):
        self.windows, self.batch, self.step = windows, windows.batch, step

    def __call__(self, step, share=ALL):
        if step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.windows(step, share)


def test_a_run_that_is_asked_to_end_saves_and_says_so(windows, tiny_spec, tmp_path):
    looks = []
    stopping = Stopping(windows, 2)
    trainer = Trainer(tiny_spec, stopping, SETTINGS, tmp_path, watch=looks.append)
    with pytest.raises(UserError, match=r"asked to end at step 3 of 6; all is saved"):
        trainer.run()
    assert Trainer(tiny_spec, windows, SETTINGS, tmp_path).step == 3
    assert not looks
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_jobs_of_limited_time_add_up_to_one_run(windows, tiny_spec, tmp_path):
    settings = SETTINGS.model_copy(update={"steps": 3})
    whole = Trainer(tiny_spec, windows, settings, tmp_path / "whole")
    whole.run()
    limited, jobs, looks = settings.model_copy(update={"minutes": 1e-9}), 0, []
    while True:
        trainer = Trainer(tiny_spec, windows, limited, tmp_path / "parts", watch=looks.append)
        trainer.run()
        jobs += 1
        if trainer.finished:
            break
    assert [trainer.step for trainer in looks] == [1, 2, 3]
    assert jobs == 3
    np.testing.assert_allclose(trainer.losses, whole.losses, rtol=1e-6)


def test_training_goes_on_between_looks_that_take_long(windows, tiny_spec, tmp_path, monkeypatch):
    """By a clock on which a step takes a minute and a look ten, with five between looks."""
    minutes, looks = [0], []

    class Slow:
        batch = windows.batch

        def __call__(self, step, share=ALL):
            minutes.append(1)
            return windows(step, share)

    def look(trainer):
        minutes.append(10)
        looks.append(trainer.step)

    clock = SimpleNamespace(monotonic=lambda: 60 * sum(minutes))
    monkeypatch.setattr("teramind.training.trainer.time", clock)
    settings = SETTINGS.model_copy(update={"steps": 15, "save_minutes": 5})
    Trainer(tiny_spec, Slow(), settings, tmp_path, watch=look).run()
    assert len(looks) > 2 and min(np.diff(looks)) > 1


def test_another_data_set_is_refused(windows, tiny_spec, tmp_path):
    Trainer(tiny_spec, windows, SETTINGS, tmp_path / "train").save()
    other = blob_windows(tmp_path / "pair", tiny_spec, seed=1)
    complaint = r"belongs to another data set; train into another folder"
    with pytest.raises(UserError, match=complaint):
        Trainer(tiny_spec, other, SETTINGS, tmp_path / "train")
    with pytest.raises(UserError, match=complaint):
        Trainer(tiny_spec, windows, SETTINGS, tmp_path / "train", files="of another size")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_computes_nearly_the_same_loss(windows, tiny_spec, tmp_path, precision):
    found = []
    for asked in ("float32", precision):
        settings = SETTINGS.model_copy(update={"steps": 3, "precision": asked})
        trainer = Trainer(tiny_spec, windows, settings, tmp_path / asked)
        trainer.run()
        found.append([loss for _, loss in trainer.losses])
        assert all(p.dtype == torch.float32 for p in trainer.network.parameters())
    assert found[0] != found[1]
    # Later losses may differ by more: float16 skips steps until the scale of its gradients fits.
    assert found[1][0] == pytest.approx(found[0][0], rel=0.01)
    assert np.isfinite(found[1]).all()


def test_lower_precision_spares_the_copy_of_the_noisy_image(tiny_spec, tmp_path):
    """At the start the noise is found to 1e-4 where it is nearly all there is; 8 bits hide that."""
    spec = dataclasses.replace(tiny_spec, base=6)
    windows = blob_windows(tmp_path / "pair", spec)
    noisiest = windows(0)._replace(t=torch.tensor([990]))
    found = []
    for asked in ("float32", "bfloat16"):
        settings = SETTINGS.model_copy(update={"precision": asked})
        trainer = Trainer(spec, windows, settings, tmp_path / asked)
        found.append(trainer.loss(trainer.network, noisiest).item())
    assert found[1] == pytest.approx(found[0], rel=0.05)


def test_training_can_start_from_other_weights(windows, tiny_spec, tmp_path):
    torch.manual_seed(5)
    start = Network(tiny_spec)
    trainer = Trainer(tiny_spec, windows, SETTINGS, tmp_path, start=start)
    for key, value in start.state_dict().items():
        assert torch.equal(trainer.network.state_dict()[key], value), key
    trainer.save()
    resumed = Trainer(tiny_spec, windows, SETTINGS, tmp_path, start=start)
    assert torch.equal(resumed.network.stem.weight, start.stem.weight)
    for other in (Network(tiny_spec), None):
        with pytest.raises(UserError, match="belongs to another start; train into another folder"):
            Trainer(tiny_spec, windows, SETTINGS, tmp_path, start=other)


CHANGED = {
    "loss": "published",
    "learning_rate": 1e-4,
    "ema": 0.5,
    "schedule": "constant",
    "dropout": 0.3,
    "precision": "bfloat16",
    "warmup": 5,
    "clip": 0.5,
    "borders": 3.0,
    "seed": 9,
}
"""Other values than those of `SETTINGS`."""


def test_every_setting_that_weights_depend_on_is_tried_below():
    assert set(CHANGED) == set(LASTING)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        *(({key: value}, f"train.{key}") for key, value in CHANGED.items()),
        ({"steps": 9, "save_minutes": 1, "keep": 1, "minutes": 5}, None),
    ],
)
def test_a_training_goes_on_with_the_settings_that_it_began_with(
    windows, tiny_spec, tmp_path, changes, refused
):
    Trainer(tiny_spec, windows, SETTINGS, tmp_path).save()
    other = SETTINGS.model_copy(update=changes)
    if refused is None:
        Trainer(tiny_spec, windows, other, tmp_path)
        return
    with pytest.raises(UserError, match=rf"belongs to another {refused}; train into another"):
        Trainer(tiny_spec, windows, other, tmp_path)


def test_windows_cut_in_other_processes_are_the_same(windows):
    ahead = list(cut_ahead(lambda step: [windows(step)], range(3, 7), workers=2))
    assert len(ahead) == 4
    for step, (found,) in zip(range(3, 7), ahead, strict=True):
        assert isinstance(found, Batch)
        assert all(torch.equal(a, b) for a, b in zip(windows(step), found, strict=True))


def test_a_sigterm_to_the_whole_job_leaves_the_last_windows_to_the_trainer(windows):
    with closing(cut_ahead(lambda step: [windows(step)], range(6), workers=2)) as ahead:
        for _ in range(2):  # one from each process: both have begun
            next(ahead)
        for process in multiprocessing.active_children():
            process.terminate()
        assert len(list(ahead)) == 4


def test_processes_that_cut_windows_end_with_the_training(windows):
    with closing(cut_ahead(lambda step: [windows(step)], range(1000), workers=2)) as ahead:
        next(ahead)
        workers = multiprocessing.active_children()
        assert len(workers) == 2
    for worker in workers:
        worker.join(10)
    assert not multiprocessing.active_children()


def test_an_error_in_a_process_that_cuts_windows_ends_them_all():
    def broken(step):
        raise UserError(f"no window {step}")

    with closing(cut_ahead(broken, range(1000), workers=2)) as ahead:
        with pytest.raises(UserError, match=r"^no window 0$") as error:
            next(ahead)
        workers = multiprocessing.active_children()
        for worker in workers:
            worker.join(10)
    assert error.tb and not multiprocessing.active_children()


def test_a_finished_run_stays_as_it_is(windows, tiny_spec, tmp_path):
    settings = SETTINGS.model_copy(update={"steps": 2})
    first = Trainer(tiny_spec, windows, settings, tmp_path)
    weights = first.run().state_dict()
    again = Trainer(tiny_spec, windows, settings, tmp_path)
    assert all(torch.equal(v, weights[k]) for k, v in again.run().state_dict().items())
    assert again.losses == first.losses


def test_another_networks_state_is_refused(windows, tiny_spec, tmp_path):
    Trainer(tiny_spec, windows, SETTINGS, tmp_path).save()
    other = dataclasses.replace(tiny_spec, base=4)
    with pytest.raises(UserError, match=r"state_00000000\.pt: belongs to another network"):
        Trainer(other, windows, SETTINGS, tmp_path)


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"words"])
def test_an_unreadable_state_is_refused_in_one_line(windows, tiny_spec, tmp_path, spoil):
    Trainer(tiny_spec, windows, SETTINGS, tmp_path).save()
    (state,) = saved_states(tmp_path)
    state.write_bytes(spoil(state.read_bytes()))
    with pytest.raises(UserError, match=r"^training state .*not readable.*$") as error:
        Trainer(tiny_spec, windows, SETTINGS, tmp_path)
    assert "\n" not in str(error.value)


class Spoiled:
    """Windows whose image is NaN at some steps."""

    def __init__(self, windows, steps):
        self.windows, self.batch, self.steps = windows, windows.batch, steps

    def __call__(self, step, share=ALL):
        batch = self.windows(step, share)
        return batch._replace(image=batch.image * torch.nan) if step in self.steps else batch


def test_steps_without_finite_gradients_change_nothing(windows, tiny_spec, tmp_path):
    settings = SETTINGS.model_copy(update={"steps": 2})
    trainer = Trainer(tiny_spec, Spoiled(windows, {0, 1}), settings, tmp_path)
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    averaged = trainer.run().state_dict()
    for key, value in before.items():
        assert torch.equal(trainer.network.state_dict()[key], value)
        assert torch.equal(averaged[key], value)
    assert trainer.step == 2


def test_repeated_steps_without_finite_gradients_stop_the_run(windows, tiny_spec, tmp_path):
    settings = SETTINGS.model_copy(update={"steps": 20})
    bad = {0, 1} | set(range(3, 20))  # two, one good, then all
    trainer = Trainer(tiny_spec, Spoiled(windows, bad), settings, tmp_path)
    with pytest.raises(UserError, match=r"5 steps in a row .* lower train\.learning_rate$"):
        trainer.run()
    assert trainer.step == 2 + SKIPPED_IN_A_ROW
