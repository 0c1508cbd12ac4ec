"""A generated volume against real images of the same plane: section by section, then as one table.

Each function is one job of the workflow. A section's job reads that section alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from teramind.evaluate.baseline import Regression, fit_regression
from teramind.evaluate.cellpose import cellpose_finder
from teramind.evaluate.features import feature_network
from teramind.evaluate.nuclei import find_nuclei
from teramind.evaluate.sources import Sources
from teramind.evaluate.summary import NOTES, SUMMARY_SCALE_UM, by_section, distances
from teramind.files import atomic_path, read_json, write_json

TYPES = {
    "section": "Int64",
    "stain": str,
    "area": str,
    "subject": str,
    "measure": str,
    "scale_um": float,
    "value": float,
    "low": float,
    "high": float,
    "parts": int,
}
"""Columns of the table of measures."""


def fit_baseline(sources: Sources, path: str | Path) -> None:
    """Fit the regression that the volume is compared with; write its weights (JSON).

    Memory: a tile of 1024 pixels of the images and its counts.

    Raises:
        UserError: see `Sources.open`.
    """
    comparison, fitted = sources.open(), None
    if comparison.reference is not None:
        fitted = fit_regression(comparison.raster, comparison.reference, sources.holdout)
    write_json(path, {"weights": fitted and fitted.weights.tolist()})


def evaluate_section(
    sources: Sources,
    section: int,
    *,
    regression: str | Path | None,
    cellpose: str | Path | None,
    path: str | Path,
) -> None:
    """Measure one section of a volume; write its measures and histograms (JSON).

    Without real images: its grey levels, nuclei and borders alone.

    Memory: a tile of 1024 pixels and 80 um around it in some ten float32 copies, about 70 MiB
    measured on 2048 x 2048 pixels; sums over some hundred parts of an area; 32 bytes for each
    nucleus of each subject.

    Args:
        sources: what is compared.
        section: which one of the plane; nothing is measured where one of the two lacks it.
        regression: what `fit_baseline` wrote; None without real images.
        cellpose: file with Cellpose weights; None finds nuclei by threshold and watershed.
        path: JSON file to write.

    Raises:
        UserError: see `Sources.open`; or when what `cellpose` needs is not there.
    """
    comparison = sources.open(_read_regression(regression))
    pixel = comparison.layout.pixel_size_um
    by_watershed = partial(find_nuclei, pixel_size_um=pixel)
    finder = cellpose_finder(cellpose, pixel_size_um=pixel) if cellpose else by_watershed
    here = [section] if section in comparison.sections else []
    rows = [row for z in here for row in comparison.rows(z, finder)]
    write_json(
        path,
        {
            "measures": [{key: _or_none(value) for key, value in row.items()} for row in rows],
            "histograms": [comparison.histograms(z) for z in here],
        },
    )


def evaluate(
    sources: Sources,
    *,
    sections: Iterable[str | Path],
    regression: str | Path | None,
    frechet: str | None,
    summary: str | Path,
    table: str | Path,
) -> dict[str, Any]:
    """Bring the sections together; write a summary (JSON) and every measure (CSV, Parquet).

    Memory: the table; with `frechet` the features of at most 2048 tiles and a network's
    activations of 32.

    Args:
        sources: what is compared.
        sections: files of `evaluate_section`, in order.
        regression: what `fit_baseline` wrote; None without real images.
        frechet: network of the Frechet distance, see `feature_network`; None leaves it out.
        summary: JSON file to write; it is also returned.
        table: CSV file to write; the Parquet file beside it has the same name.

    Raises:
        UserError: see `Sources.open`; or when what `frechet` needs is not there.
    """
    comparison, fitted = sources.open(), _read_regression(regression)
    parts = [read_json(path) for path in sections]
    rows = [row for part in parts for row in part["measures"]]
    rows += comparison.frechet_rows(feature_network(frechet)) if frechet else []
    measures = pd.DataFrame(rows, columns=list(TYPES)).astype(TYPES)
    _write_table(measures, Path(table))
    record = {
        "smoothing_um": SUMMARY_SCALE_UM,
        "pixel_size_um": comparison.layout.pixel_size_um,
        "compared": comparison.reference is not None,
        "holdout": sources.holdout and list(sources.holdout),
        "whole": list(comparison.shared),
        "notes": NOTES,
        "frechet": distances(measures),
        "histograms": _added([one for part in parts for one in part["histograms"]]),
        "regression": fitted and fitted.weights.tolist(),
        "sections": by_section(measures),
    }
    write_json(summary, record)
    return record


def _read_regression(path: str | Path | None) -> Regression | None:
    weights = read_json(path)["weights"] if path else None
    return weights and Regression(np.array(weights))


def _or_none(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and np.isnan(value) else value


def _added(histograms: list[dict[str, dict[str, list[int]]]]) -> dict[str, dict[str, list[int]]]:
    """Pixels at each grey level, all sections together: by stain and subject."""
    return {
        stain: {
            subject: np.sum([one[stain][subject] for one in histograms], 0).tolist()
            for subject in subjects
        }
        for stain, subjects in histograms[0].items()
    }


def _write_table(measures: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        measures.to_csv(temporary, index=False, float_format="%.6g")
    with atomic_path(path.with_suffix(".parquet")) as temporary:
        measures.to_parquet(temporary, index=False)
