"""From plain values to a checked configuration, and to the files it needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from teramind.config.learning import EFFICIENTNET
from teramind.config.problems import problem
from teramind.config.published import PREFIX
from teramind.config.whole import Config
from teramind.errors import UserError


def parse_config(values: Mapping[str, Any]) -> Config:
    """Validate a configuration.

    Raises:
        UserError: with one line per problem, each naming the key, what it got and what may be.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        kinds = ("molecules", "cells", "tiles")
        errors = error.errors(include_url=False)
        # pydantic finds a list too short whose entries are at fault
        inner = {e["loc"][:depth] for e in errors for depth in range(len(e["loc"]))}
        found = (problem(e, Config, kinds) for e in errors if not e["loc"] or e["loc"] not in inner)
        raise UserError(*(line for lines in found for line in lines.split("\n"))) from None


def _evaluation_files(config: Config) -> dict[str, str | None]:
    """Files with weights that the evaluation reads."""
    asked = config.evaluation
    named = asked.frechet if asked and asked.frechet != EFFICIENTNET else None
    return {
        "evaluation.frechet": named,
        "evaluation.cellpose": asked.cellpose if asked else None,
    }


def missing_files(config: Config) -> list[str]:
    """One line per file or folder that the configuration names and nobody will make.

    The source is needed until the raster is there.
    """
    binned = Path(config.results, "expression", "raster.zarr").exists()
    made = config.phantom is not None
    named = {
        "expression.source": None if made or binned else config.expression.source,
        "expression.panel": config.expression.panel,
        "expression.synonyms": None if binned else config.expression.synonyms,
        "network.checkpoint": None if config.trains else config.network.checkpoint,
        "train.start": config.train.start if config.trains and config.train else None,
        "train.start_panel": config.train.start_panel if config.trains and config.train else None,
        "reference.images": config.reference.images if config.reference and not made else None,
        "expression.gene_names": getattr(config.expression, "gene_names", None),
        **_evaluation_files(config),
        "attention.pathways": config.attention.pathways if config.attention else None,
        "attention.regions": config.attention.regions if config.attention else None,
    }
    if config.trains and config.train and (tiles := config.train.tiles):
        named["train.tiles.folder"] = tiles.folder
        named |= {f"train.tiles.lists.{k}": path for k, path in enumerate(tiles.lists)}
    return [
        f"{key}: no such file: {path}"
        for key, path in named.items()
        if path is not None and not path.startswith(PREFIX) and not Path(path).exists()
    ]
