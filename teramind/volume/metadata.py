"""The metadata files of volumes, kept as text beside them to be compared and restored.

Making the empty volumes anew would do it, too, but Snakemake would then draw all of them anew.
"""

from __future__ import annotations

from pathlib import Path

from teramind.errors import UserError
from teramind.files import atomic_path, read_json, require_inside

NAME = "zarr.json"

RECORD = "layout.json"
"""File beside the volumes with the text of their metadata, under `metadata`."""


def read_metadata(*volumes: Path, root: Path) -> dict[str, str]:
    """Text of the volumes' own metadata and of each level's: path relative to `root` -> text."""
    found = [path for v in volumes for path in (v / NAME, *sorted(v.glob(f"[0-9]*/{NAME}")))]
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in found}


def damaged_metadata(record: Path, root: Path) -> dict[Path, str]:
    """What `read_metadata` said when the volumes were made, of the files that differ now.

    A record of an older program, without the metadata of attention maps, says nothing.

    Raises:
        UserError: when the record is damaged.
    """
    if not record.is_file():
        return {}
    try:
        texts = read_json(record).get("metadata", {})
        made = {root / str(name): str(text) for name, text in texts.items()}
        for path in made:
            require_inside(path, root)
    except (OSError, ValueError, AttributeError):
        raise UserError(f"{record}: damaged; remove {record.parent} to draw it anew") from None
    return {path: text for path, text in made.items() if _text(path) != text}


def restore_metadata(texts: dict[Path, str]) -> None:
    """Write metadata files as they were."""
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
