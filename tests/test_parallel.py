"""Two processes learn what one does, and refuse windows that they cannot share."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training_pair import SETTINGS, blob_windows

from teramind.errors import UserError
from teramind.training.parallel import Team, team
from teramind.training.resume import saved_states
from teramind.training.trainer import Trainer

HERE = Path(__file__).parent
TOGETHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def train(command, folder, spec, *, batch, **settings):
    """Run `train_alone_or_together`; return the losses of every process."""
    folder.mkdir()
    given = json.dumps({"spec": spec.to_dict(), "batch": batch, "settings": settings})
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    run = subprocess.run(
        [*command, str(HERE / "train_alone_or_together.py"), str(folder), given],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(path.read_text()) for path in sorted(folder.glob("losses_*.json"))]


def test_two_processes_have_the_losses_of_one(tmp_path, tiny_spec):
    together = train(TOGETHER, tmp_path / "two", tiny_spec, batch=2, dropout=0.1)
    (alone,) = train(
        [sys.executable], tmp_path / "one", tiny_spec, batch=2, accumulate=2, dropout=0.1
    )
    assert together[0] == together[1]
    np.testing.assert_allclose(together[0], alone, rtol=1e-4)
    (one,), (two,) = (saved_states(tmp_path / name / "states") for name in ("one", "two"))
    weights = [torch.load(path, weights_only=True)["average"] for path in (one, two)]
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=1e-3, atol=1e-4)


def test_pieces_add_up_to_the_whole_step(tmp_path, tiny_spec):
    windows = blob_windows(tmp_path / "pair", tiny_spec, batch=2)
    settings = SETTINGS.model_copy(update={"steps": 2, "dropout": 0})
    found = []
    for pieces in (1, 2):
        asked = settings.model_copy(update={"accumulate": pieces})
        trainer = Trainer(tiny_spec, windows, asked, tmp_path / f"in_{pieces}")
        trainer.run()
        found.append(trainer.losses)
    np.testing.assert_allclose(*found, rtol=1e-5)


@pytest.mark.parametrize(
    ("asked", "here", "processes", "backend"),
    [
        (0, 2, 1, None),
        (1, 0, 1, None),
        (1, 1, 1, None),
        (2, 2, 2, "nccl"),
        (2, 1, 2, "gloo"),
        (2, 0, 2, "gloo"),
        (0, 2, 2, "gloo"),
    ],
)
def test_gpus_are_used_where_they_are_asked_for_and_every_process_has_one(
    monkeypatch, asked, here, processes, backend
):
    began = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: here)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.distributed, "init_process_group", began.append)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    for rank in range(processes):
        for key in ("RANK", "LOCAL_RANK"):
            monkeypatch.setenv(key, str(rank))
        for key in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            monkeypatch.setenv(key, str(processes))
        with team(asked) as found:
            assert (found.rank, found.size) == (rank, processes)
            gpu = asked > 0 and here >= processes
            assert found.device == torch.device(f"cuda:{rank}" if gpu else "cpu")
    assert began == [backend] * processes if backend else began == []


@pytest.mark.parametrize(
    ("processes", "pieces", "batch"), [(3, 1, 2), (2, 2, 2), (1, 3, 4), (2, 1, 3)]
)
def test_windows_that_cannot_be_shared_are_refused(
    tmp_path, tiny_spec, windows, processes, pieces, batch
):
    windows = blob_windows(tmp_path / "pair", tiny_spec, batch=batch)
    fault = (
        rf"^training: {batch} windows a step cannot be shared by {processes} processes x {pieces}"
    )
    with pytest.raises(UserError, match=fault):
        Trainer(
            tiny_spec,
            windows,
            SETTINGS.model_copy(update={"accumulate": pieces}),
            tmp_path,
            team=Team(0, processes),
        )


def test_a_share_of_a_step_is_a_part_of_it(tmp_path, tiny_spec):
    windows = blob_windows(tmp_path, tiny_spec, batch=4)
    whole = windows(5)
    for share in (slice(0, 2), slice(3, 4)):
        for part, all_of_it in zip(windows(5, share), whole, strict=True):
            assert torch.equal(part, all_of_it[share])
