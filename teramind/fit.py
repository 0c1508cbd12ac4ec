"""Whether a checkpoint fits the configuration; needs no torch, so it is asked before any job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from teramind.config import Config
from teramind.errors import UserError
from teramind.network.spec import NetworkSpec, read_spec

PIXEL_TOLERANCE = 0.05
"""How far the pixel size may be from that of the training, as a share."""


def require_fit(config: Config) -> None:
    """Compare the configuration with the checkpoint that it names, if that is there and ours.

    Raises:
        UserError: one line per key that differs, or one on a file that is no checkpoint.
    """
    path = Path(config.network.checkpoint)
    if config.trains or config.converts or not path.is_file():
        return
    spec = read_spec(path)
    if lines := list(misfits(config, spec, path)) if spec else []:
        raise UserError(*lines)


def misfits(config: Config, spec: NetworkSpec, path: Path) -> Iterator[str]:
    """One line per key of the configuration that the network's sizes contradict."""
    asked = config.network
    for key, found, wanted in (
        ("patch", spec.patch, asked.patch),
        ("sections", spec.sections, asked.sections),
        ("stains", list(spec.stains), list(asked.stains)),
    ):
        if found != wanted:
            yield f"network.{key}: {wanted}, but the checkpoint {path} has {found}"
    trained, pixel = spec.pixel_size_um, config.plane.pixel_size_um
    if trained and abs(trained / pixel - 1) > PIXEL_TOLERANCE:
        yield f"plane.pixel_size_um: {pixel}, but the checkpoint {path} was trained at {trained}"
