"""Whether checkpoint and training windows fit the configuration; needs no torch.

So it is asked before any job.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from teramind.config import Config
from teramind.errors import UserError
from teramind.network.published import published_folder
from teramind.network.spec import read_spec
from teramind.split import Part
from teramind.training.places import Places
from teramind.training.start_fit import start_misfits


def require_fit(config: Config) -> None:
    """Compare the configuration with itself and with the checkpoint that it names, if it is there.

    Of a published one the name of its folder is read, not the weights.

    Raises:
        UserError: one line per key that differs, or one on a file that is no checkpoint.
    """
    path = Path(config.network.checkpoint)
    if lines := [*windowless(config), *_start(config)]:
        raise UserError(*lines)
    if config.trains or config.checkpoint_archive or not path.exists():
        return
    spec = read_spec(path) if path.is_file() and not config.converts else None
    pixel = config.plane.pixel_size_um
    if spec:
        lines = [*spec.misfits(path, pixel_size_um=pixel, **config.network.sizes)]
    else:
        lines = [*_folder_misfits(config, path)]
    if lines:
        raise UserError(*lines)


def _start(config: Config) -> Iterator[str]:
    """One line per key that the network to go on from contradicts, if it is there.

    A published one is left to the job, which can read it.
    """
    asked = config.train
    if not (config.trains and asked and asked.start and Path(asked.start).is_file()):
        return
    spec = read_spec(asked.start) if Path(asked.start).suffix == ".safetensors" else None
    if spec:
        yield from start_misfits(config, asked, spec)


def windowless(config: Config) -> Iterator[str]:
    """One line per part of the split that no training window fits into."""
    if not (config.trains and config.train and config.reference) or config.train.tiles:
        return
    split, patch = config.split(), config.network.patch
    size = config.train.window * patch
    parts: list[Part] = ["train", "validation"] if split.validation else ["train"]
    for part in parts:
        closed = split.closed(part)
        if not len(Places(split.plane, size=size, margin=patch // 2, closed=closed)):
            yield (
                f"train.window: {config.train.window} patches are {size} pixels, which fit nowhere "
                f"in the {part} part; make it smaller, or reference.split's blocks larger"
            )


def _folder_misfits(config: Config, path: Path) -> Iterator[str]:
    """One line per key that the name of a published checkpoint's folder contradicts."""
    folder = path if path.is_dir() else path.parent
    named = published_folder(folder.absolute().name)
    for key, wanted in config.network.sizes.items() if named else ():
        found = getattr(named, key)
        found = list(found) if key == "stains" else found
        if found != wanted:
            yield f"network.{key}: {wanted}, but the name of the folder {folder} says {found}"
