"""A pathway in one section as a picture: expression in the genes' colours, and its attention."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from teramind.attention.coarse import PLACE, coarse_bands, level, meeting
from teramind.block_means import LONGEST
from teramind.evaluate.structure import smooth
from teramind.files import atomic_path
from teramind.units import scale_bar
from teramind.volume import volume_layout

SMOOTHING = 4.0
"""Standard deviation of the Gaussian in bins: the published 2 pixels of 2 bins."""

MOST_BARS = 4
"""Genes that get a colour bar each; more are named in a legend."""

Floats = NDArray[np.float32]


class Section(NamedTuple):
    """Smoothed levels of one section: expression (gene, y, x), attention (y, x) by kind."""

    expression: Floats
    attention: dict[str, Floats]
    tissue: NDArray[np.bool_]
    pixel_um: float


def read_section(volume: Path, z: int, network_genes: int) -> Section:
    """Average at least 2 x 2 bins, take levels, mask attention to where genes meet, smooth.

    Expression is log2(N + 1), attention log2(A G + 1) of the pathway's genes added up, 0 where
    fewer than two of the genes are within a place: as many whole pixels of the picture as `PLACE`
    bins hold, one at least. Memory: one section at the pictures' size.
    """
    layout = volume_layout(volume)
    genes, kinds = layout.attributes["genes"], layout.attributes["kinds"]
    factor = max(2, -(-max(layout.shape[2:]) // LONGEST))
    planes = np.concatenate(list(coarse_bands(volume, z, factor)), axis=1)
    maps = dict(zip(kinds, np.split(planes, len(kinds)), strict=True))
    counts, sigma = maps.pop("counts"), SMOOTHING / factor
    there = _meeting_places(counts, max(PLACE // factor, 1))
    tissue = smooth((counts > 0).any(0), sigma) > 0.02
    return Section(
        np.stack([smooth(np.log2(counts[g] + 1), sigma) for g in range(len(genes))]),
        {
            k: smooth(level(m.sum(0), network_genes) * there, sigma) * tissue
            for k, m in maps.items()
        },
        tissue,
        layout.pixel_size_um * factor,
    )


def _meeting_places(counts: Floats, edge: int) -> NDArray[np.bool_]:
    """Where at least two genes (gene, y, x) are in the square of `edge` pixels around."""
    _, height, width = counts.shape
    rows, cols = (np.arange(0, length, edge) for length in (height, width))
    squares = np.add.reduceat(np.add.reduceat(counts, rows, 1), cols, 2)
    there = meeting(squares).repeat(edge, 0).repeat(edge, 1)
    return there[:height, :width]


def display_limits(volume: Path, network_genes: int) -> dict[str, float]:
    """Levels to show at full brightness in all sections: "counts" and a gene, or a kind of map.

    The largest, over the sections, of what all but 0.2 % of a section's picture stays below.
    Memory: one section at the pictures' size.
    """
    layout = volume_layout(volume)
    limits: dict[str, float] = {}
    for z in range(layout.shape[1]):
        section = read_section(volume, z, network_genes)
        names = (_expressed(gene) for gene in layout.attributes["genes"])
        genes = zip(names, section.expression, strict=True)
        for name, plane in (*genes, *section.attention.items()):
            highest = float(np.quantile(plane, 0.998))
            limits[name] = max(limits.get(name, 0.0), round(highest, 3))
    return {name: limit or 1.0 for name, limit in limits.items()}


def _expressed(gene: str) -> str:
    """What the limit of a gene's expression is called, and its channel: a kind has no space."""
    return f"counts {gene}"


def draw_section(
    volume: Path, z: int, path: Path, *, limits: Mapping[str, float], network_genes: int, title: str
) -> None:
    """Draw a pathway's expression and attention in section `z` as PNG.

    Args:
        volume: the pathway's.
        z: section of the volume.
        path: PNG file to make.
        limits: levels shown at full brightness, from `display_limits`.
        network_genes: genes that the network reads.
        title: stands above.
    """
    from matplotlib.figure import Figure

    layout = volume_layout(volume)
    genes = layout.attributes["genes"]
    section = read_section(volume, z, network_genes)
    height, width = section.tissue.shape
    panels = 1 + len(section.attention)
    edge = 3.4
    size = (edge * panels, edge * height / width * 0.86 + 1.2)
    figure = Figure(figsize=(size[0], min(max(size[1], 2.6), 12)), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, panels)
    _expression(figure, axes[0], section, genes, layout.colours, limits)
    for of_kind, kind in zip(axes[1:], sorted(section.attention), strict=True):
        shown = of_kind.imshow(
            section.attention[kind], cmap="inferno", vmin=0, vmax=limits[kind], rasterized=True
        )
        of_kind.set_title(f"attention, {_WORDS[kind]}", fontsize=9)
        _colour_bar(figure, of_kind, shown, "log₂(A·N·G + 1)")
    for of_kind in axes:
        of_kind.set(xticks=[], yticks=[])
        _scale_bar(of_kind, width, height, section.pixel_um)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png", metadata={"Software": None})


_WORDS = {"all": "whole window", "down": "with the section below", "up": "with the one above"}


def _expression(
    figure: Any,
    axes: Any,
    section: Section,
    genes: list[str],
    colours: tuple[str, ...],
    limits: Mapping[str, float],
) -> None:
    """Add up the genes, each in its colour, and show what the colours mean."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
    from matplotlib.patches import Patch

    mixed = np.zeros((*section.tissue.shape, 3))
    for plane, gene, colour in zip(section.expression, genes, colours, strict=False):
        strength = np.clip(plane / limits[_expressed(gene)], 0, 1)[..., None]
        mixed += strength * to_rgb(f"#{colour}")
    axes.imshow(np.clip(mixed, 0, 1))
    axes.set_title("expression", fontsize=9)
    if len(genes) > MOST_BARS:
        handles = [Patch(color=f"#{c}", label=g) for g, c in zip(genes, colours, strict=False)]
        axes.legend(handles=handles, fontsize=5, ncols=2, loc="upper left")
        return
    for gene, colour in zip(genes, colours, strict=False):
        ramp = LinearSegmentedColormap.from_list(gene, ["black", f"#{colour}"])
        scale = ScalarMappable(Normalize(0, limits[_expressed(gene)]), ramp)
        _colour_bar(figure, axes, scale, f"{gene}, log₂(N + 1)")


def _colour_bar(figure: Any, axes: Any, scale: Any, label: str) -> None:
    """A bar below the axes that names its ends and its middle."""
    bar = figure.colorbar(scale, ax=axes, orientation="horizontal", shrink=0.8, pad=0.02)
    bar.set_label(label, fontsize=8)
    low, high = scale.get_clim()
    ticks = (low, (low + high) / 2, high)
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.ax.tick_params(labelsize=7)


def _scale_bar(axes: Any, width: int, height: int, pixel_um: float) -> None:
    """A bar of a round length with its label, in the lower right corner."""
    percent, label = scale_bar(width * pixel_um)
    right, y = 0.96 * width - 0.5, 0.95 * height - 0.5  # pixels reach half of one around
    axes.plot([right - percent / 100 * width, right], [y, y], color="white", linewidth=2.5)
    axes.text(right, y - 0.02 * height, label, color="white", fontsize=7, ha="right", va="bottom")
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
