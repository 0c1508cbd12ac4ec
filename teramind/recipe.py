"""A training run as the config describes it."""

from __future__ import annotations

from pathlib import Path

import torch

from teramind.config import Config
from teramind.dataset import PairedImages, TrainingWindows
from teramind.expression.raster import Raster
from teramind.geometry import Rect
from teramind.images import open_images
from teramind.network import NetworkSpec
from teramind.train import TrainSettings, train


def train_from_config(
    config: Config,
    *,
    raster: Path,
    images: Path,
    checkpoint: Path,
    loss_table: Path,
    loss_picture: Path,
) -> None:
    """Train the network of the sections `network` and `train`; a killed run goes on.

    The resumable state is `work/train/state.pt` in the results folder.
    """
    assert config.train is not None and config.reference is not None
    asked, plane = config.train, config.plane
    expression = Raster.open(raster)
    spec = NetworkSpec(
        patch=config.network.patch,
        sections=config.network.sections,
        stains=config.network.stains,
        genes=len(expression.panel),
        base=asked.base,
        embed=asked.embed,
        panel=expression.panel,
        pixel_size_um=plane.pixel_size_um,
        section_spacing_um=plane.section_spacing_um,
    )
    holdout = config.reference.holdout
    windows = TrainingWindows(
        PairedImages(open_images(images, spec.stains), expression),
        spec,
        edge=asked.window,
        batch=asked.batch,
        holdout=Rect(*holdout) if holdout else None,
        seed=asked.seed,
    )
    settings = TrainSettings(
        steps=asked.steps,
        learning_rate=asked.learning_rate,
        ema=asked.ema,
        loss=asked.loss,
        dropout=asked.dropout,
        seed=asked.seed,
        save_minutes=asked.save_minutes,
    )
    train(
        spec=spec,
        windows=windows,
        settings=settings,
        folder=Path(config.results) / "work" / "train",
        checkpoint=checkpoint,
        loss_table=loss_table,
        loss_picture=loss_picture,
        record={"settings": asked.model_dump(mode="json"), "data": config.expression.source},
        licence=asked.licence,
        dtype=getattr(torch, asked.weights),
    )
