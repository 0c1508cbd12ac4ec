"""A training run as the config describes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from teramind.config import Config, Train
from teramind.errors import UserError
from teramind.expression.panel import read_panel
from teramind.network import Network, NetworkSpec, load_network, save_network
from teramind.network.device import require_bfloat16, where
from teramind.network.initial import carries_copy, copy_weights
from teramind.network.repanel import repanel
from teramind.training.material import Material, open_material, sizes_digest
from teramind.training.parallel import Team, team
from teramind.training.start_fit import start_misfits
from teramind.training.trainer import Trainer
from teramind.training.watch import Watch, tensorboard


def train_from_config(config: Config) -> bool:
    """Train the network of the sections `network` and `train`; a killed run goes on.

    Under `torchrun` every process calls this.

    Returns:
        Whether training is finished and the checkpoint written; False when the time of
        `train.minutes` was over first.

    Raises:
        UserError: when inputs do not fit each other, the machine has not the precision asked for,
            training diverges or is asked to end.
    """
    if not config.trains or config.train is None:
        raise UserError("network.checkpoint: must be 'train' for training")
    asked, files = config.train, config.files
    material = open_material(config)
    start = _start(config, asked, material.panel)
    spec = _spec(config, asked, material.panel, start)
    with team(asked.gpus) as processes:
        _require_machine(asked, processes)
        trainer = Trainer(
            spec,
            material.windows(spec),
            asked,
            files.training_states,
            start=start,
            files=sizes_digest(material.paths),
            team=processes,
            watch=_watch(material, spec, files.training) if processes.leads else None,
        )
        network = trainer.run()
        if trainer.finished and processes.leads:
            record = {"settings": asked.model_dump(mode="json"), "data": material.name}
            network.spec = dataclasses.replace(spec, training=record, licence=asked.licence)
            exact = copy_weights(network) if carries_copy(network) else ()
            dtype = getattr(torch, asked.weights)
            save_network(network, files.trained, dtype=dtype, exact=exact)
        processes.wait()
        return trainer.finished


def _require_machine(asked: Train, processes: Team) -> None:
    """Say where training runs. Raises UserError where it cannot have the precision asked for."""
    device = processes.device.type
    if asked.precision == "bfloat16":
        require_bfloat16(device, key="train.precision")
    if processes.leads:
        here = where(device, gpus=asked.gpus, key="train.gpus")
        together = f", in {processes.size} processes" * (processes.size > 1)
        print(f"training: {here}{together}", flush=True)


def _start(config: Config, asked: Train, panel: tuple[str, ...]) -> Network | None:
    """The network to go on from, made to read `panel`."""
    if asked.start is None:
        return None
    named = read_panel(asked.start_panel) if asked.start_panel else ()
    network = load_network(asked.start, panel=tuple(named))
    if lines := list(start_misfits(config, asked, network.spec)):
        raise UserError(*lines)
    torch.manual_seed(asked.seed)  # of the weights of new genes
    return repanel(network, panel)


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


def _watch(material: Material, spec: NetworkSpec, folder: Path) -> Watch:
    """What is looked at while training; it reads through readers of its own."""
    board = tensorboard(folder / "tensorboard")
    return Watch(folder, material.validation(spec), material.sample(spec), board)
