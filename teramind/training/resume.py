"""Resumable states of a training run on disk: atomic, the last few kept, checked when read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from teramind.errors import UserError
from teramind.files import atomic_path

_NAME = re.compile(r"state_\d+\.pt")


def saved_states(folder: Path) -> list[Path]:
    """States in a folder, oldest step first; steps have eight digits, so names sort."""
    return sorted(path for path in folder.glob("state_*.pt") if _NAME.fullmatch(path.name))


def last_step(folder: Path) -> int:
    """Step of the newest state; 0 if there is none."""
    states = saved_states(folder)
    return int(states[-1].stem.removeprefix("state_")) if states else 0


def write_state(folder: Path, state: dict[str, Any], *, keep: int) -> None:
    """Write the state of `state["step"]`, whole or not at all; keep the last `keep` states."""
    with atomic_path(folder / f"state_{state['step']:08d}.pt") as temporary:
        torch.save(state, temporary)
    for old in saved_states(folder)[:-keep]:
        old.unlink(missing_ok=True)


def read_state(folder: Path, same: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The newest state, on `device`; empty if there is none.

    Args:
        folder: where the states are.
        same: what must be in the state as it is here: key -> value; keys are shown to the user.
        device: where its tensors go.

    Raises:
        UserError: when it is not readable or belongs to another run.
    """
    states = saved_states(folder)
    if not states:
        return {}
    path = states[-1]
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        found = {key: state[key] for key in same}
    except Exception as error:  # torch raises many kinds on broken files
        line = str(error).partition("\n")[0]
        other = "go on from the one before" if len(states) > 1 else "start anew"
        raise UserError(
            f"training state {path}: not readable ({line}); remove it to {other}"
        ) from None
    for key, value in same.items():
        if found[key] != value:
            raise UserError(
                f"training state {path}: belongs to another {key}; train into another folder or "
                "remove it"
            )
    return state
