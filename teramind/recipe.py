"""A training run as the config describes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from teramind.config import Config, Train
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
    assert config.train is not None
    asked = config.train
    expression = Raster.open(raster)
    spec = _spec(config, asked, expression.panel)
    same = {field.name for field in dataclasses.fields(TrainSettings)}
    train(
        spec=spec,
        windows=_windows(config, asked, spec, images, expression),
        settings=TrainSettings(**asked.model_dump(include=same)),
        folder=Path(config.results) / "work" / "train",
        checkpoint=checkpoint,
        loss_table=loss_table,
        loss_picture=loss_picture,
        record={"settings": asked.model_dump(mode="json"), "data": config.expression.source},
        licence=asked.licence,
        dtype=getattr(torch, asked.weights),
    )


def _spec(config: Config, asked: Train, panel: tuple[str, ...]) -> NetworkSpec:
    return NetworkSpec(
        patch=config.network.patch,
        sections=config.network.sections,
        stains=config.network.stains,
        genes=len(panel),
        base=asked.base,
        embed=asked.embed,
        panel=panel,
        pixel_size_um=config.plane.pixel_size_um,
        section_spacing_um=config.plane.section_spacing_um,
    )


def _windows(
    config: Config, asked: Train, spec: NetworkSpec, images: Path, expression: Raster
) -> TrainingWindows:
    assert config.reference is not None
    holdout = config.reference.holdout
    return TrainingWindows(
        PairedImages(open_images(images, spec.stains), expression),
        spec,
        edge=asked.window,
        batch=asked.batch,
        holdout=Rect(*holdout) if holdout else None,
        seed=asked.seed,
    )
