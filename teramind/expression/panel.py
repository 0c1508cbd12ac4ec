"""The gene panel of a model, and how the gene names of a data set map to it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from teramind.errors import UserError, invisible

if TYPE_CHECKING:
    import pandas as pd


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return (number, text) of the lines that hold more than a `#` comment."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text: save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read as a text file: {error.strerror}") from error
    for number, line in enumerate(text.split("\n"), 1):
        if invisible(line.replace("\t", " ").rstrip("\r")):
            raise UserError(f"{path}, line {number}: {line!r}: not a line of text")
    lines = [(n, line.split("#")[0].strip()) for n, line in enumerate(text.splitlines(), 1)]
    return [(number, line) for number, line in lines if line]


def read_panel(path: Path | str) -> tuple[str, ...]:
    """Return the genes of a text file, one a line, in order.

    Raises UserError if the file cannot be read, holds no gene, or a gene twice.
    """
    first: dict[str, int] = {}
    for number, gene in _lines(Path(path)):
        if gene in first:
            raise UserError(
                f"{path}, line {number}: gene {gene!r} is listed on line {first[gene]} already:"
                " each gene once"
            )
        first[gene] = number
    if not first:
        raise UserError(f"{path}: no genes: write one gene name a line")
    return tuple(first)


def read_synonyms(path: Path | str) -> dict[str, str]:
    """Return {name: panel name} of a tab-separated file with these two columns and no header.

    Raises UserError if the file cannot be read, a line has not two columns, or a name two meanings.
    """
    synonyms: dict[str, str] = {}
    for number, line in _lines(Path(path)):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 2 or not all(fields):
            raise UserError(
                f"{path}, line {number}: {line!r}: two columns expected, name <tab> panel name"
            )
        name, gene = fields
        if synonyms.setdefault(name, gene) != gene:
            raise UserError(
                f"{path}, line {number}: {name!r} stands for {synonyms[name]!r} and {gene!r}:"
                " keep one of them"
            )
    return synonyms


@dataclass(frozen=True)
class PanelMatch:
    """Which source names feed which panel genes, and how each was recognised."""

    panel: tuple[str, ...]
    index: dict[str, int]
    """Source name to index in the panel."""
    status: dict[str, str]
    """Source name to `exact`, `synonym` or `case`."""
    extra: tuple[str, ...]
    """Source names that match no panel gene."""

    def first(self, genes: int) -> PanelMatch:
        """As a network has it that reads the panel's first `genes`: names of others are extra."""
        index = {name: place for name, place in self.index.items() if place < genes}
        unread = (name for name in self.index if name not in index)
        status = {name: self.status[name] for name in index}
        return PanelMatch(self.panel[:genes], index, status, (*self.extra, *unread))

    @property
    def matched(self) -> tuple[str, ...]:
        """Panel genes that the source has."""
        found = set(self.index.values())
        return tuple(gene for place, gene in enumerate(self.panel) if place in found)

    @property
    def missing(self) -> tuple[str, ...]:
        """Panel genes that the source lacks."""
        found = set(self.index.values())
        return tuple(gene for place, gene in enumerate(self.panel) if place not in found)

    @property
    def fraction(self) -> float:
        """Matched panel genes over panel size."""
        return len(self.matched) / len(self.panel)

    def table(self, molecules: Mapping[str, int] | None = None) -> pd.DataFrame:
        """Return one row per panel gene, then one per extra source name.

        Columns panel_gene, status (exact, synonym, case, summed, missing, extra), source_gene
        (joined by `;` where several add up) and molecules, from the molecules per source name.
        """
        import pandas as pd

        molecules = molecules or {}
        names: list[list[str]] = [[] for _ in self.panel]
        for name, place in self.index.items():
            names[place].append(name)
        rows = [
            (gene, self._row_status(of), ";".join(of), sum(molecules.get(n, 0) for n in of))
            for gene, of in zip(self.panel, names, strict=True)
        ]
        rows += [("", "extra", name, molecules.get(name, 0)) for name in self.extra]
        return pd.DataFrame(rows, columns=["panel_gene", "status", "source_gene", "molecules"])

    @property
    def lookalikes(self) -> dict[str, str]:
        """Extra source names that but for case are a panel gene, and that gene."""
        spelled = {gene.casefold(): gene for gene in self.panel}
        return {n: spelled[n.casefold()] for n in self.extra if n.casefold() in spelled}

    def require(self, minimum_fraction: float) -> None:
        """Raise UserError if less than this fraction of the panel is matched."""
        if self.fraction < minimum_fraction:
            raise UserError(
                f"{len(self.matched)} of {len(self.panel)} panel genes found"
                f" ({self.fraction:.1%}, at least {minimum_fraction:.1%} needed)"
                f"{self._hint()}: give the right panel, or a synonyms file"
            )

    def _row_status(self, names: Sequence[str]) -> str:
        if not names:
            return "missing"
        return self.status[names[0]] if len(names) == 1 else "summed"

    def _hint(self) -> str:
        """Name near matches of a few missing genes, else the first names found."""
        near = [(gene, difflib.get_close_matches(gene, self.extra, 1)) for gene in self.missing[:8]]
        pairs = [f"{names[0]!r} for {gene!r}" for gene, names in near if names][:3]
        if pairs:
            return f", near matches {', '.join(pairs)}"
        return f", unmatched names such as {', '.join(map(repr, self.extra[:3])) or 'none'}"


def match_genes(
    names: Iterable[str], panel: Sequence[str], synonyms: Mapping[str, str] | None = None
) -> PanelMatch:
    """Match source names to panel genes: by equal name, by synonym, then by case-blind name.

    Case is ignored only for a panel gene matched in no other way, and where one source name and
    one panel gene alone share the spelling. Names that reach one gene as synonyms add up.
    """
    places = {gene: place for place, gene in enumerate(panel)}
    synonyms = synonyms or {}
    names = tuple(dict.fromkeys(names))
    index = {name: places[name] for name in names if name in places}
    status = dict.fromkeys(index, "exact")
    for name in names:
        if name not in index and synonyms.get(name) in places:
            index[name], status[name] = places[synonyms[name]], "synonym"
    for name, place in _case_blind(names, panel, index).items():
        index[name], status[name] = place, "case"
    extra = tuple(name for name in names if name not in index)
    return PanelMatch(tuple(panel), index, status, extra)


def _case_blind(
    names: Sequence[str], panel: Sequence[str], matched: Mapping[str, int]
) -> dict[str, int]:
    """Return the unambiguous case-blind matches of names not matched yet."""
    found = set(matched.values())
    of_panel = _by_spelling(panel)
    of_source = _by_spelling([name for name in names if name not in matched])
    return {
        sources[0]: panel.index(of_panel[spelling][0])
        for spelling, sources in of_source.items()
        if len(sources) == 1
        and len(of_panel.get(spelling, ())) == 1
        and panel.index(of_panel[spelling][0]) not in found
    }


def _by_spelling(names: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.casefold(), []).append(name)
    return groups
