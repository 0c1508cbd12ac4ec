"""Gathering the run's records into one page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from teramind.config import FROM_TRAINING
from teramind.evaluate.baseline import Regression
from teramind.files import atomic_path, read_json
from teramind.geometry import Rect
from teramind.report.attention import AttentionView, read_attention
from teramind.report.facts import fact_tables, read_panel_report, verdicts
from teramind.report.measures import measures_figure
from teramind.report.pictures import embed_file
from teramind.report.runtime import rule_times
from teramind.report.seams import VISIBLE, read_seams
from teramind.report.sections import section_gallery
from teramind.units import duration
from teramind.volume import volume_layout

_HERE = Path(__file__).parent


def write_report(
    path: str | Path,
    *,
    title: str,
    volume: Path,
    raster: Path,
    receipts: Sequence[Path],
    provenance: Path,
    panel_table: Path,
    summary: Path,
    benchmarks: Path,
    evaluation: Path | None = None,
    reference: Path | None = None,
    split: Path | None = None,
    training: Path | None = None,
    attention: Path | None = None,
) -> None:
    """Write one HTML page that needs no other file; the same inputs give the same bytes.

    Memory: the pictures of up to 12 sections, whatever the volume's size.

    Args:
        path: page to write.
        title: heading of the page.
        volume: generated volume with its pyramid.
        raster: expression raster it was generated from.
        receipts: one JSON per slab, with its seam numbers.
        provenance: JSON of the run; its `config` names network and seed.
        panel_table: TSV of `bin_expression`.
        summary: JSON of `bin_expression`.
        benchmarks: folder of Snakemake's benchmark tables, <rule>/<job>.tsv.
        evaluation: JSON of `evaluate`; its holdout is outlined on the real images.
        reference: real images as `resample_images` writes them.
        split: picture of the training, validation and test part.
        training: folder with loss.png, and samples.png if there is one.
        attention: folder with the pathways' pictures and tables.

    Raises:
        UserError: when volume, raster or reference are not what they should be.
    """
    scores = read_json(evaluation) if evaluation else None
    record = read_json(provenance)
    layout = volume_layout(volume)
    page = {
        "title": title,
        "layout": layout,
        "generate": record["config"]["generate"],
        "network": Path(record["config"]["network"]["checkpoint"]).name,
        "trained": record["config"]["network"]["checkpoint"] == FROM_TRAINING,
        "gallery": section_gallery(
            volume, raster, reference=reference, holdout=_holdout(scores), weights=_weights(scores)
        ),
        "summary": read_json(summary),
        "seams": read_seams(receipts),
        "visible": VISIBLE,
        **_evaluation(evaluation, scores),
        "split": _embed(split, "Training, validation and test part over the tissue"),
        "training": _training(training),
        "attention": _attention(attention, record["config"]),
        "panel": read_panel_report(panel_table),
        "times": rule_times(benchmarks),
        "facts": fact_tables(record),
        "python_path": repr(str(volume)),
        "shell_path": shlex.quote(str(volume)),
        "level": layout.levels - 1,
    }
    with atomic_path(path) as temporary:
        temporary.write_text(_template().render(page), encoding="utf-8")


def _evaluation(path: Path | None, scores: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the page says of an evaluation: against real images, or of the volume alone."""
    none: dict[str, Any] = {"scores": None, "alone": None, "verdicts": [], "measures": None}
    if path is None or scores is None:
        return none
    if not scores["compared"]:
        return none | {"alone": scores}
    figure = measures_figure(path.with_suffix(".csv"), scores)
    return {"scores": scores, "alone": None, "verdicts": verdicts(scores), "measures": figure}


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "signed": _signed, "power": _power}
    return environment.get_template("page.html")


def _holdout(scores: Mapping[str, Any] | None) -> Rect | None:
    return Rect(*scores["holdout"]) if scores and scores["holdout"] else None


def _weights(scores: Mapping[str, Any] | None) -> Regression | None:
    return Regression(np.array(scores["regression"])) if scores and scores["regression"] else None


def _training(folder: Path | None) -> list[Any]:
    """The pictures of a training run."""
    if folder is None:
        return []
    shown = {
        "loss.png": "Training loss against training step",
        "samples.png": "A piece of tissue as generated at the end of training, and the real one",
    }
    return [_embed(folder / name, alt) for name, alt in shown.items() if (folder / name).exists()]


def _attention(folder: Path | None, config: Mapping[str, Any]) -> AttentionView | None:
    """What is shown of attention; pairs of genes of an older run with regions are not."""
    if folder is None:
        return None
    return read_attention(folder, regions=bool(config["attention"]["regions"]))


def _embed(path: Path | None, alt: str) -> Any:
    return embed_file(path.read_bytes(), alt) if path else None


def _signed(value: float | None, digits: int = 3) -> str:
    """Write a number with a minus sign; a dash where there is none."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _power(count: float) -> str:
    """Write a count in the unit a reader takes in at a glance."""
    for unit, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:,.0f}"
