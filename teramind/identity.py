"""What a state says it belongs to: slab, phase, and a run of certain settings and weights."""

from __future__ import annotations

import json
from pathlib import Path

from teramind.config import Config
from teramind.files import digest
from teramind.geometry import Slab


def run_digest(config: Config, checkpoint: Path) -> str:
    """What a state's run depends on, as one digest: settings and weights."""
    weights = checkpoint / "last.ckpt" if checkpoint.is_dir() else checkpoint
    return digest((json.dumps(config.identity(), sort_keys=True) + digest(weights)).encode())


def state_identity(slab: Slab, phase: int, run: str) -> dict[str, str]:
    """What a state file must say it is."""
    return {"slab": str(slab), "phase": str(phase), "run": run}
