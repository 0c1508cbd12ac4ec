"""A training run as the config describes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import torch

from teramind.config import Config, Train
from teramind.dataset import PairedImages, TrainingWindows
from teramind.errors import UserError
from teramind.expression.panel import read_panel
from teramind.expression.raster import Raster
from teramind.geometry import Rect
from teramind.images import open_images
from teramind.network import Network, NetworkSpec, load_network, save_network
from teramind.network.initial import carries_copy, copy_weights
from teramind.network.repanel import repanel
from teramind.parallel import team
from teramind.preview import generate_piece, piece_of, real_piece
from teramind.rate import TrainSettings
from teramind.split import Split
from teramind.train import Trainer
from teramind.watch import Sample, Watch, tensorboard

MOST_VALIDATED = 4
"""Windows of one of the validation loss's batches at most."""


class TrainingFiles(NamedTuple):
    """What training reads and writes, by their places in the results folder."""

    raster: Path
    images: Path
    split: Path
    folder: Path
    states: Path

    @classmethod
    def of(cls, results: str | Path) -> TrainingFiles:
        """Those of a results folder."""
        root = Path(results)
        return cls(
            root / "expression" / "raster.zarr",
            root / "reference" / "images.zarr",
            root / "reference" / "split.json",
            root / "train",
            root / "work" / "train",
        )

    @property
    def checkpoint(self) -> Path:
        """The network that training leaves."""
        return self.folder / "checkpoint.safetensors"


def train_from_config(config: Config) -> bool:
    """Train the network of the sections `network` and `train`; a killed run goes on.

    Under `torchrun` every process calls this.

    Returns:
        Whether training is finished and the checkpoint written; False when the time of
        `train.minutes` was over first.

    Raises:
        UserError: when inputs do not fit each other, training diverges or is asked to end.
    """
    if not config.trains or config.train is None:
        raise UserError("network.checkpoint: must be 'train' for training")
    asked, files = config.train, TrainingFiles.of(config.results)
    split = Split.read(files.split)
    pairs = _pairs(config, files)
    start = _start(config, asked, pairs.raster.panel)
    spec = _spec(config, asked, pairs.raster.panel, start)
    same = {field.name for field in dataclasses.fields(TrainSettings)}
    with team() as processes:
        windows = TrainingWindows(
            pairs,
            spec,
            edge=asked.window,
            batch=asked.batch,
            seed=asked.seed,
            closed=split.closed("train"),
        )
        trainer = Trainer(
            spec,
            windows,
            TrainSettings(**asked.model_dump(include=same)),
            files.states,
            start=start,
            team=processes,
            watch=_watch(config, asked, spec, files, split) if processes.leads else None,
        )
        network = trainer.run()
        if trainer.finished and processes.leads:
            record = {"settings": asked.model_dump(mode="json"), "data": config.expression.source}
            network.spec = dataclasses.replace(spec, training=record, licence=asked.licence)
            exact = copy_weights(network) if carries_copy(network) else ()
            dtype = getattr(torch, asked.weights)
            save_network(network, files.checkpoint, dtype=dtype, exact=exact)
        processes.wait()
        return trainer.finished


def _pairs(config: Config, files: TrainingFiles) -> PairedImages:
    """Images and raster, opened and compared with the plane."""
    images = open_images(files.images, config.network.stains)
    plane, patch = config.plane.rect, config.network.patch
    height, width = images.shape[2:]
    if max(abs(height - plane.bottom), abs(width - plane.right)) >= patch:
        raise UserError(
            f"{files.images}: {height} x {width} pixels of {config.plane.pixel_size_um} um, but "
            f"the plane ends at {plane.bottom} x {plane.right}; images and expression must show "
            "the same: check the pixel size, plane.height and plane.width"
        )
    return PairedImages(images, Raster.open(files.raster))


def _start(config: Config, asked: Train, panel: tuple[str, ...]) -> Network | None:
    """The network to go on from, made to read `panel`."""
    if asked.start is None:
        return None
    named = read_panel(asked.start_panel) if asked.start_panel else ()
    network = load_network(asked.start, panel=tuple(named)).requires_grad_(True)
    spec = network.spec
    wanted: dict[str, Any] = {"patch": config.network.patch, "sections": config.network.sections}
    wanted |= {"stains": tuple(config.network.stains)}
    wanted |= {key: getattr(asked, key) for key in asked.model_fields_set & {"base", "embed"}}
    for key, value in wanted.items():
        if getattr(spec, key) != value:
            raise UserError(
                f"train.start: {asked.start} has {key} {getattr(spec, key)}, the config {value}"
            )
    return repanel(network, panel).requires_grad_(True)


def _spec(
    config: Config, asked: Train, panel: tuple[str, ...], start: Network | None
) -> NetworkSpec:
    return NetworkSpec(
        patch=config.network.patch,
        sections=config.network.sections,
        stains=config.network.stains,
        genes=len(panel),
        base=start.spec.base if start else asked.base,
        embed=start.spec.embed if start else asked.embed,
        panel=panel,
        pixel_size_um=config.plane.pixel_size_um,
        section_spacing_um=config.plane.section_spacing_um,
    )


def _watch(
    config: Config, asked: Train, spec: NetworkSpec, files: TrainingFiles, split: Split
) -> Watch:
    """What is looked at while training; it reads through a raster of its own."""
    pairs = _pairs(config, files)
    validation = None
    if split.validation:
        validation = TrainingWindows(
            pairs,
            spec,
            edge=asked.window,
            batch=min(asked.batch, MOST_VALIDATED),
            seed=asked.seed,
            closed=split.closed("validation"),
            part="validation",
        )
    area = split.validation[0] if split.validation else Rect(0, 0, pairs.height, pairs.width)
    piece = piece_of(area, spec.patch)
    sample = Sample(
        generate=lambda network: generate_piece(network, pairs, piece),
        real=real_piece(pairs, spec.sections, piece),
        stains=spec.stains,
    )
    return Watch(files.folder, validation, sample, tensorboard(files.folder / "tensorboard"))
