"""What a state says it belongs to: slab, phase, and a run of certain settings and inputs."""

from __future__ import annotations

import json
from pathlib import Path

from teramind.config import Config
from teramind.files import digest
from teramind.geometry import Slab


def run_digest(config: Config, *, checkpoint: Path, raster: Path) -> str:
    """What a state's run depends on, as one digest: settings, weights and expression.

    The raster's record names its panel, its sources with their sizes and the molecules of each
    section; made again from the same data it is the same.
    """
    files = digest(checkpoint) + digest(raster / "zarr.json")
    return digest((json.dumps(config.identity(), sort_keys=True) + files).encode())


def state_identity(slab: Slab, phase: int, run: str) -> dict[str, str]:
    """What a state file must say it is."""
    return {"slab": str(slab), "phase": str(phase), "run": run}
