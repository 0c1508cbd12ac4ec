"""Whether the network that training is to go on from fits the configuration; needs no torch."""

from __future__ import annotations

from collections.abc import Iterator

from teramind.config import Config, Train
from teramind.network.spec import NetworkSpec


def start_misfits(config: Config, asked: Train, spec: NetworkSpec) -> Iterator[str]:
    """One line per key that the start's sizes contradict."""
    where, network = f"train.start: {asked.start}", config.network
    for key, found, wanted in (
        ("patch", spec.patch, network.patch),
        ("sections", spec.sections, network.sections),
        ("stains", list(spec.stains), list(network.stains)),
    ):
        if found != wanted:
            yield f"{where} has {key} {found}, network.{key} is {wanted}"
    for key in sorted(asked.model_fields_set & {"base", "embed"}):
        if (found := getattr(spec, key)) != (wanted := getattr(asked, key)):
            yield f"{where} has {key} {found}, train.{key} is {wanted}; leave it out"
