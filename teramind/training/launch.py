"""Training as a job of the workflow: here, or in a process for every GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from teramind.config import Config
from teramind.errors import UserError
from teramind.files import write_json
from teramind.training.recipe import train_from_config
from teramind.training.resume import last_step

TO_SAVE = 300
"""Seconds that processes have after a SIGTERM to end their step and save; torchrun gives 30."""


def run_training(config: Config, values: Mapping[str, Any], *, threads: int, log: Path) -> bool:
    """Train as `train.gpus` says.

    Args:
        config: the configuration.
        values: the same as it was given, for the processes.
        threads: CPU threads of the job.
        log: where this process's output goes, and so that of others.

    Returns:
        Whether training is finished.

    Raises:
        UserError: as `train_from_config`.
    """
    import torch

    assert config.train is not None
    if config.train.gpus > 1:
        return _in_processes(config, values, threads, log)
    torch.set_num_threads(threads)
    return train_from_config(config)


def reached(config: Config) -> str:
    """How far training has come, in words."""
    assert config.train is not None
    step = last_step(config.files.training_states)
    return f"step {step} of {config.train.steps}"


def _in_processes(config: Config, values: Mapping[str, Any], threads: int, log: Path) -> bool:
    """Start a process for each GPU with torchrun; a SIGTERM is handed on, so that they save."""
    assert config.train is not None
    files, count = config.files, config.train.gpus
    given = files.training_states / "config.json"
    write_json(given, dict(values))
    files.trained.unlink(missing_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={count}", "-m", "teramind", "train", "--configfile", str(given)]
    path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    more = {"OMP_NUM_THREADS": str(max(threads // count, 1))}
    more |= {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(TO_SAVE)}
    more |= {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    process = subprocess.Popen(command, env=os.environ | more)

    def hand_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        status = process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    if status:
        printed = log.read_text(encoding="utf-8", errors="replace").splitlines()
        lines = [line.partition("error: ")[2] for line in printed if line.startswith("error: ")]
        raise UserError(*dict.fromkeys(lines or [f"training: status {status}; see {log}"]))
    return files.trained.exists()
