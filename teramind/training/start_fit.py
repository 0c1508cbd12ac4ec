"""Whether the network that training is to go on from fits the configuration; needs no torch."""

from __future__ import annotations

from collections.abc import Iterator

from teramind.config import Config, Train
from teramind.network.spec import NetworkSpec


def start_misfits(config: Config, asked: Train, spec: NetworkSpec) -> Iterator[str]:
    """One line per key that the start's sizes contradict."""
    where = f"train.start: {asked.start}"
    for key, found, wanted in spec.differing(**config.network.sizes):
        yield f"{where} has {key} {found}, network.{key} is {wanted}"
    own = {key: getattr(asked, key) for key in sorted(asked.model_fields_set & {"base", "embed"})}
    for key, found, wanted in spec.differing(**own):
        yield f"{where} has {key} {found}, train.{key} is {wanted}; leave it out"
