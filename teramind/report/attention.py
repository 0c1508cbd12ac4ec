"""What the report shows of gene-gene attention: pictures, pairs of genes."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from teramind.files import read_json
from teramind.report.pictures import Picture, embed_file
from teramind.report.sections import evenly_chosen

SHOWN_SECTIONS = 3
SHOWN_PAIRS = 5
"""Per region."""


@dataclass(frozen=True)
class PathwayView:
    """One pathway: pictures of some sections, and the joint plot."""

    name: str
    sections: tuple[Picture, ...]
    joint: Picture


@dataclass(frozen=True)
class AttentionView:
    """All pathways, and the first pairs of every region, none without regions."""

    pathways: tuple[PathwayView, ...]
    pairs: tuple[dict[str, str], ...]


def read_attention(folder: Path, *, regions: bool) -> AttentionView:
    """Read the folder `attention` of a results folder, its pairs of genes only with `regions`."""
    pathways = read_json(folder / "summary.json")["pathways"]
    return AttentionView(
        tuple(_pathway(folder, name) for name in pathways),
        tuple(_pairs(folder / "pairs.tsv")) if regions else (),
    )


def _pathway(folder: Path, name: str) -> PathwayView:
    pictures = sorted((folder / "pictures" / name).glob("section_*.png"))
    chosen = [pictures[i] for i in evenly_chosen(len(pictures), SHOWN_SECTIONS)]
    sections = [
        embed_file(
            path.read_bytes(), f"Expression and attention of {name}, {path.stem.replace('_', ' ')}"
        )
        for path in chosen
    ]
    joint = embed_file(
        (folder / "pictures" / name / "joint.png").read_bytes(),
        f"Attention of {name} against expression of its genes, with regression lines",
    )
    return PathwayView(name, tuple(sections), joint)


def _pairs(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    seen: dict[str, int] = {}
    shown = []
    for row in rows:
        seen[row["region"]] = seen.get(row["region"], 0) + 1
        if seen[row["region"]] <= SHOWN_PAIRS:
            shown.append(row)
    return shown
