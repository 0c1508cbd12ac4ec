"""A published checkpoint, alone or inside its archive, as one of our safetensors."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from teramind.archives import extract, open_zip
from teramind.errors import UserError
from teramind.files import scratch_folder
from teramind.network.checkpoint import load_network, save_network
from teramind.network.published import published_folder

LARGEST = 1 << 33
"""Most bytes of a checkpoint; the full-size one has 0.9 GB of weights, its optimiser twice that."""


def convert_checkpoint(
    source: Path,
    target: Path,
    *,
    panel: Sequence[str] = (),
    patch: int,
    sections: int,
    stains: Sequence[str],
    mouse: str | None = None,
) -> None:
    """Write a published checkpoint as a safetensors file that says what it is.

    Args:
        source: a `last.ckpt`, the folder that holds it, or a zip archive with such folders.
        target: file to make.
        panel: gene names in the network's order, at least as many as it reads.
        patch: patch edge P of the network, by which it is found in an archive.
        sections: its expression sections S.
        stains: its stains.
        mouse: the mouse it was published for, None for any.

    Raises:
        UserError: when the source holds no such network: a line for every size that differs.
    """
    sizes = {"patch": patch, "sections": sections, "stains": list(stains)}
    if source.suffix != ".zip":
        _save(source, target, panel, sizes)
        return
    with open_zip(source) as archive, scratch_folder(target) as scratch:
        wanted = (mouse, patch, sections, tuple(stains))
        member = _find(archive, wanted)
        folder = scratch / PurePosixPath(member.filename).parent.name  # it says the sizes
        folder.mkdir()
        extract(archive, member, folder / "last.ckpt", largest=LARGEST)
        try:
            _save(folder, target, panel, sizes)
        except UserError as error:
            raise UserError(str(error).replace(str(scratch), str(source))) from error


def _save(source: Path, target: Path, panel: Sequence[str], sizes: dict[str, Any]) -> None:
    network = load_network(source, panel=tuple(panel))
    if lines := [*network.spec.misfits(source, **sizes)]:
        raise UserError(*lines)
    named = (source if source.is_dir() else source.absolute().parent).name
    network.spec = dataclasses.replace(network.spec, training={"published": named})
    save_network(network, target)


def _find(
    archive: zipfile.ZipFile, wanted: tuple[str | None, int, int, tuple[str, ...]]
) -> zipfile.ZipInfo:
    """The one checkpoint for a mouse (None: any), patch, sections and stains."""
    found, fitting = [], []
    for member in archive.infolist():
        path = PurePosixPath(member.filename)
        if path.name != "last.ckpt" or not (named := published_folder(path.parent.name)):
            continue
        found.append(path.parent.name)
        sizes = (named.patch, named.sections, named.stains)
        if (wanted[0] or named.mouse, *wanted[1:]) == (named.mouse, *sizes):
            fitting.append(member)
    if len(fitting) != 1:
        mouse, patch, sections, stains = wanted
        raise UserError(
            f"{archive.filename}: holds {', '.join(found) or 'no last.ckpt'}, of which"
            f" {len(fitting)} for mouse {mouse or 'any'}, patch {patch}, {sections} sections,"
            f" {' and '.join(stains)}; name another archive, or a folder out of this one"
        )
    return fitting[0]
