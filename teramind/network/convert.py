"""A published checkpoint, alone or inside its archive, as one of our safetensors."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from teramind.archives import extract, open_zip
from teramind.errors import UserError
from teramind.network.checkpoint import FOLDER, STAINS, load_network, save_network

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
) -> None:
    """Write a published checkpoint as a safetensors file that says what it is.

    Args:
        source: a `last.ckpt`, the folder that holds it, or a zip archive with such folders.
        target: file to make.
        panel: gene names in the network's order, at least as many as it reads.
        patch: patch edge P of the network to take from an archive.
        sections: its expression sections S.
        stains: its stains.

    Raises:
        UserError: when the source holds no such network.
    """
    if source.suffix != ".zip":
        save_network(load_network(source, panel=tuple(panel)), target)
        return
    with open_zip(source) as archive, tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        member = _find(archive, patch=patch, sections=sections, stains=tuple(stains))
        folder = Path(scratch) / Path(member.filename).parent.name  # it says the sizes
        folder.mkdir()
        extract(archive, member, folder / "last.ckpt", largest=LARGEST)
        save_network(load_network(folder, panel=tuple(panel)), target)


def _find(
    archive: zipfile.ZipFile, *, patch: int, sections: int, stains: tuple[str, ...]
) -> zipfile.ZipInfo:
    """The one checkpoint of these sizes."""
    found = {}
    for member in archive.infolist():
        path = Path(member.filename)
        if path.name == "last.ckpt" and (named := FOLDER.fullmatch(path.parent.name)):
            sizes = (int(named["patch"]), int(named["sections"]), STAINS.get(named["stain"]))
            found[member.filename] = (member, sizes == (patch, sections, stains))
    fitting = [member for member, fits in found.values() if fits]
    if len(fitting) != 1:
        raise UserError(
            f"{archive.filename}: {len(fitting)} checkpoints of patch {patch}, {sections} sections"
            f" and stains {', '.join(stains)} among {', '.join(found) or 'none'}; set network.patch"
            " and its like to those of one, or unpack one and name its folder"
        )
    return fitting[0]
