"""The evaluation as figures: measures by scale, grey levels and nuclei beside the baselines."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from teramind.report.pictures import Picture, embed_file

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_COLOURS = {
    "generated": "#c2410c",
    "real": "#111827",
    "density": "#9ca3af",
    "regression": "#2563eb",
    "neighbour": "#059669",
}
_LEVELS_SHOWN = 32
_NUCLEI = (
    ("nuclei_per_mm2", "nuclei per mm²"),
    ("nuclei_diameter_um", "diameter, µm"),
    ("nuclei_f1", "F1 within 4 µm"),
)


def measures_figure(table: Path, record: Mapping[str, Any]) -> Picture:
    """Draw what an evaluation found, means over the sections, on the holdout if there is one.

    Args:
        table: CSV that `evaluate` wrote.
        record: its summary.
    """
    import pandas as pd
    from matplotlib.figure import Figure

    area = "holdout" if record["holdout"] else "whole"
    rows = pd.read_csv(table)
    rows = rows[rows["area"] == area]
    stains = list(record["histograms"])
    counted = rows["measure"].isin([measure for measure, _ in _NUCLEI]).any()  # DAPI alone has them
    lines = len(stains) + int(counted)
    figure = Figure(figsize=(11, 3.1 * lines), layout="constrained")
    axes = figure.subplots(lines, 3, squeeze=False)
    for line, stain in zip(axes, stains, strict=False):
        of_stain = rows[rows["stain"] == stain]
        _by_scale(line[0], of_stain, "correlation", f"{stain}: r with the real image")
        line[0].set_xlabel("smoothed by, µm")
        _by_scale(line[1], of_stain, "log10_power_ratio", f"{stain}: log₁₀ power over real")
        line[1].set_xlabel("wavelengths from, µm")
        line[1].axhline(0, color=_COLOURS["real"], linewidth=0.8, linestyle=":")
        _histograms(line[2], record["histograms"][stain])
        line[2].set_title(f"{stain}: grey levels", fontsize=9)
    for place, (measure, title) in zip(axes[-1], _NUCLEI if counted else (), strict=False):
        _bars(place, rows[rows["measure"] == measure], title)
    axes[0, 0].legend(fontsize=7)
    axes[0, 2].legend(fontsize=7)
    file = io.BytesIO()
    figure.savefig(file, dpi=110, format="png")
    return embed_file(
        file.getvalue(),
        "Correlation and power by scale, grey level histograms, and nuclei: generated, real and "
        "the baselines",
    )


def _means(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    return rows.groupby(by, sort=False)[["value", "low", "high"]].mean().reset_index()


def _by_scale(axes: Axes, rows: pd.DataFrame, measure: str, title: str) -> None:
    found = _means(rows[rows["measure"] == measure], ["subject", "scale_um"])
    for subject, part in found.groupby("subject", sort=False):
        colour = _COLOURS[str(subject)]
        axes.plot(part["scale_um"], part["value"], "o-", color=colour, label=subject, markersize=4)
        axes.fill_between(part["scale_um"], part["low"], part["high"], color=colour, alpha=0.15)
    axes.set_xscale("log")
    axes.set_xticks(scales := sorted(found["scale_um"].unique()), [f"{s:g}" for s in scales])
    axes.set_xticks([], minor=True)
    axes.set_title(title, fontsize=9)


def _histograms(axes: Axes, histograms: Mapping[str, list[int]]) -> None:
    for subject, levels in histograms.items():
        share = np.array(levels).reshape(_LEVELS_SHOWN, -1).sum(1) / sum(levels)
        edges = np.linspace(0, len(levels), _LEVELS_SHOWN + 1)
        axes.stairs(share, edges, color=_COLOURS[subject], label=subject, linewidth=1.5)
    axes.set(yscale="log", xlabel="grey level", ylabel="share of pixels")


def _bars(axes: Axes, rows: pd.DataFrame, title: str) -> None:
    found = _means(rows, ["subject"])
    colours = [_COLOURS[subject] for subject in found["subject"]]
    axes.barh(found["subject"], found["value"], color=colours, alpha=0.8)
    apart = [found["value"] - found["low"], found["high"] - found["value"]]
    axes.errorbar(
        found["value"], found["subject"], xerr=np.clip(apart, 0, None), fmt="none", color="black"
    )
    axes.invert_yaxis()
    axes.set_title(title, fontsize=9)
