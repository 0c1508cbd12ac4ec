"""The metadata files of a volume, kept as text beside it so that they can be compared and restored.

Making the empty volume anew would do it, too, but Snakemake would then draw all of it anew.
"""

from __future__ import annotations

from pathlib import Path

from teramind.errors import UserError
from teramind.files import atomic_path, read_json, require_inside

NAME = "zarr.json"

RECORD = "layout.json"
"""File beside the volume with the text of its metadata, under `metadata`."""


def read_metadata(volume: Path) -> dict[str, str]:
    """Text of the volume's own metadata and of each level's: relative path -> text."""
    found = [volume / NAME, *sorted(volume.glob(f"[0-9]*/{NAME}"))]
    return {str(path.relative_to(volume)): path.read_text(encoding="utf-8") for path in found}


def damaged_metadata(volume: Path) -> dict[str, str]:
    """What `read_metadata` said when the volume was made, of the files that differ now.

    Raises:
        UserError: when the record of it is damaged.
    """
    record = volume.parent / RECORD
    if not record.is_file():
        return {}
    try:
        made = {str(name): str(text) for name, text in read_json(record)["metadata"].items()}
        for name in made:
            require_inside(volume / name, volume)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise UserError(f"{record}: damaged; remove {volume.parent} to draw it anew") from None
    return {name: text for name, text in made.items() if _text(volume / name) != text}


def restore_metadata(volume: Path, texts: dict[str, str]) -> None:
    """Write metadata files as they were."""
    for name, text in texts.items():
        path = volume / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
