"""Pathways: named sets of 2 to 16 genes, read from a GMT file and found on the panel.

GMT is the gene set format of MSigDB: per line a name, a description and the genes, split by tabs.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from teramind.errors import UserError
from teramind.expression.panel import match_genes

FEWEST, MOST = 2, 16
"""Genes of a pathway."""

MOST_PATHWAYS = 16
"""Their maps of one slab are in memory together."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

_PUBLISHED = {
    "GLUT": ("00FFD1", "B0FF00"),
    "DOPA": ("FF0066", "FF6600"),
    "BLOD": ("FF6EFF", "FF337D"),
}
"""Colours of the genes in the published pictures (Tera-MIND release, utils/__init__.py)."""

_OTHERS = ("56B4E9", "E69F00", "009E73", "F0E442", "CC79A7", "D55E00", "0072B2", "FFFFFF")
"""Colours of other pathways' genes (Okabe and Ito, Color Universal Design, 2008), in turn."""


@dataclass(frozen=True)
class Pathway:
    """A named set of genes. The name is also a folder's name, so it is letters, digits, - and _."""

    name: str
    genes: tuple[str, ...]

    @property
    def colours(self) -> tuple[str, ...]:
        """RRGGBB of each gene."""
        own = _PUBLISHED.get(self.name, ())
        colours = own if len(own) == len(self.genes) else _OTHERS
        return tuple(colours[i % len(colours)] for i in range(len(self.genes)))


def map_kinds(sections: int) -> tuple[str, ...]:
    """Kinds of maps that windows of so many sections have, in the channels' order."""
    return ("all", "counts") if sections == 1 else ("down", "up", "all", "counts")


def channel_names(pathway: Pathway, sections: int) -> tuple[str, ...]:
    """Names of a pathway's channels: every kind, gene by gene."""
    return tuple(f"{kind} {gene}" for kind in map_kinds(sections) for gene in pathway.genes)


def read_pathways(path: str | Path) -> list[Pathway]:
    """Read a GMT file; lines that start with # are comments.

    Raises:
        UserError: naming the line that is malformed.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a text file: {error}") from None
    pathways: dict[str, Pathway] = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            pathway = _parse(line, where=f"{path}, line {number}")
            if pathway.name.lower() in (name.lower() for name in pathways):
                raise UserError(f"{path}, line {number}: pathway {pathway.name!r} is there already")
            pathways[pathway.name] = pathway
    if not 1 <= len(pathways) <= MOST_PATHWAYS:
        raise UserError(f"{path}: {len(pathways)} pathways; must be 1 to {MOST_PATHWAYS}")
    return list(pathways.values())


def _parse(line: str, where: str) -> Pathway:
    name, *rest = (field.strip() for field in line.split("\t"))
    genes = tuple(gene for gene in rest[1:] if gene)
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{where}: name {name[:80]!r}; must be up to 64 letters, digits, - and _, and stand "
            "before a tab, a description and the genes, all split by tabs"
        )
    if len(set(genes)) < len(genes):
        twice = next(gene for gene in genes if genes.count(gene) > 1)
        raise UserError(f"{where}: pathway {name} lists {twice!r} twice")
    if not FEWEST <= len(genes) <= MOST:
        raise UserError(
            f"{where}: pathway {name} has {len(genes)} genes; must be {FEWEST} to {MOST}, after a "
            "name and a description, split by tabs"
        )
    return Pathway(name, genes)


def on_panel(
    pathways: Sequence[Pathway], panel: Sequence[str], synonyms: Mapping[str, str] | None = None
) -> list[tuple[Pathway, list[int]]]:
    """Give every pathway its genes' names and places on the panel.

    Names are matched as those of expression data are: exactly, by synonym, then case-blind.

    Raises:
        UserError: one line naming every gene that is not on the panel and what is spelt like it,
            or two names that are one gene.
    """
    found, faults = [], []
    for pathway in pathways:
        match = match_genes(pathway.genes, panel, synonyms)
        faults += [f"{gene} ({pathway.name}{_near(gene, panel)})" for gene in match.extra]
        places = [match.index[gene] for gene in pathway.genes if gene in match.index]
        if len(set(places)) < len(places):
            raise UserError(f"pathway {pathway.name}: {', '.join(pathway.genes)} name a gene twice")
        found.append((Pathway(pathway.name, tuple(panel[i] for i in places)), places))
    if faults:
        raise UserError(
            f"pathway genes not on the panel of {len(panel)} genes: {'; '.join(faults)}"
        )
    return found


def _near(gene: str, panel: Sequence[str]) -> str:
    spelling = {name.casefold(): name for name in panel}
    near = difflib.get_close_matches(gene.casefold(), list(spelling), 3, 0.7)
    return f", near: {', '.join(spelling[name] for name in near)}" if near else ""
