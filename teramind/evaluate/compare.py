"""A generated volume against real images of the same plane, section by section, as one table."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from teramind.errors import UserError
from teramind.evaluate.baseline import fit_regression
from teramind.evaluate.cellpose import cellpose_finder
from teramind.evaluate.comparison import Comparison
from teramind.evaluate.features import feature_network
from teramind.evaluate.measure import Lattice
from teramind.evaluate.nuclei import find_nuclei
from teramind.evaluate.place import volume_place
from teramind.expression import Raster
from teramind.files import atomic_path, write_json
from teramind.geometry import Rect
from teramind.images import open_images
from teramind.volume import VolumeLayout, open_level, volume_layout

SUMMARY_SCALE_UM = 5.0
"""Smoothing of the correlations in the summary."""

NOTES = {
    "correlation": "Pearson r of two images after Gaussian smoothing (standard deviation "
    "scale_um); empty where one of the two is constant.",
    "density": "Molecules of all genes per bin of 16 x 16 pixels, the same value on every pixel of "
    "a bin. It knows positions to a bin only: the raster holds no finer ones.",
    "regression": "Grey level as a linear function of a bin's counts of every gene, fitted on all "
    "bins outside the holdout; without a holdout on all bins, and then flattered.",
    "neighbour": "The real image of the next section (of the one before for the last): how well "
    "real tissue predicts itself.",
    "interval": "low and high: 95 %, from drawing parts of the area again with replacement.",
    "log10_power_ratio": "Power of the generated image over the real one's, wavelengths from "
    "scale_um to twice that.",
    "border_ratio": "Mean squared step between pixels across borders of patches or slabs, over "
    "that inside patches, a quarter of a patch from their borders; 1 where no border shows.",
    "frechet": "Squared Frechet distance of the features of tiles of 128 pixels, covariances "
    "shrunk, all sections together. Generated: generated tiles from real ones of other places; "
    "real: the floor, real tiles from those same real ones. parts: tiles on either side.",
    "nuclei": "Otsu threshold of each image and watershed, or Cellpose; f1 counts nuclei within "
    "4 um of a real one as found.",
    "whole": "The part of the plane that volume and reference share, background and training area "
    "included. Only the holdout was kept from training.",
}


def evaluate(
    *,
    volume: str | Path,
    raster: str | Path,
    reference: str | Path | None,
    holdout: Rect | None,
    lattice: Lattice,
    summary: str | Path,
    table: str | Path,
    frechet: str | None = None,
    cellpose: str | Path | None = None,
) -> dict[str, Any]:
    """Compare a volume with real images; write a summary (JSON) and every measure (CSV, Parquet).

    Without real images: its grey levels, nuclei and borders alone.

    Memory: a tile of 1024 pixels and 80 um around it in some ten float32 copies, about 70 MiB
    measured on 2048 x 2048 pixels; sums over at most 1024 parts of an area; with `frechet` the
    features of at most 2048 tiles and a network's activations of 32.

    Args:
        volume: generated volume; its metadata say where it lies on the plane.
        raster: expression raster it was generated from.
        reference: real images as `resample_images` writes them: pixel (0, 0) of section 0 is the
            plane's, stains are the volume's. None when there are none.
        holdout: rectangle of the plane, in pixels, kept from training; None when there was none.
        lattice: the cells it was generated in.
        summary: JSON file to write; it is also returned.
        table: CSV file to write; the Parquet file beside it has the same name.
        frechet: network of the Frechet distance, see `feature_network`; None leaves it out.
        cellpose: file with Cellpose weights; None finds nuclei by threshold and watershed.

    Raises:
        UserError: when volume, reference and holdout share no pixels, the stains differ, or what
            `frechet` or `cellpose` need is not there.
    """
    comparison = _comparison(volume, raster, reference, holdout, lattice, frechet, cellpose)
    areas = {"holdout": holdout.cut(comparison.shared)} if holdout else {}
    areas["whole"] = comparison.shared
    measures = pd.DataFrame(comparison.rows(areas)).astype({"section": "Int64"})
    _write_table(measures, Path(table))
    regression = comparison.regression
    record = {
        "smoothing_um": SUMMARY_SCALE_UM,
        "pixel_size_um": comparison.layout.pixel_size_um,
        "compared": comparison.reference is not None,
        "holdout": holdout and list(holdout),
        "whole": list(comparison.shared),
        "notes": NOTES,
        "frechet": _frechet(measures),
        "histograms": comparison.histograms(next(iter(areas.values()))),
        "regression": regression and regression.weights.tolist(),
        "sections": _summary(measures),
    }
    write_json(summary, record)
    return record


def _comparison(
    volume: str | Path,
    raster: str | Path,
    reference: str | Path | None,
    holdout: Rect | None,
    lattice: Lattice,
    frechet: str | None,
    cellpose: str | Path | None,
) -> Comparison:
    """Open what is compared, and find what both show; see `evaluate`."""
    layout = volume_layout(volume)
    pixel, shared = layout.pixel_size_um, volume_place(layout).rect
    images = None if reference is None else open_images(reference, layout.stains)
    if images is not None:
        shared = _shared(layout, images, where=f"reference {reference}")
    if holdout is not None and not holdout.cut(shared).height:
        raise UserError(
            f"holdout {tuple(holdout)}: lies outside {tuple(shared)}, what volume and reference "
            "share; give a rectangle inside (y, x, height, width in pixels)"
        )
    expression = Raster.open(raster)
    by_watershed = partial(find_nuclei, pixel_size_um=pixel)
    return Comparison(
        layout=layout,
        generated=open_level(volume, 0),
        reference=images,
        raster=expression,
        regression=None if images is None else fit_regression(expression, images, holdout),
        shared=shared,
        lattice=lattice,
        finder=cellpose_finder(cellpose, pixel_size_um=pixel) if cellpose else by_watershed,
        features=feature_network(frechet) if frechet else None,
    )


def _write_table(measures: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        measures.to_csv(temporary, index=False, float_format="%.6g")
    with atomic_path(path.with_suffix(".parquet")) as temporary:
        measures.to_parquet(temporary, index=False)


def _summary(measures: pd.DataFrame) -> list[dict[str, Any]]:
    """For each section, stain and area the correlations and grey levels that the report shows."""
    records = []
    for (section, stain), rows in measures.groupby(["section", "stain"], sort=False):
        record: dict[str, Any] = {"section": int(section), "stain": stain, "holdout": None}
        for area, part in rows.groupby("area", sort=False):
            record[area] = _area_summary(part)
        records.append(record)
    return records


def _area_summary(rows: pd.DataFrame) -> dict[str, Any]:
    at_scale = rows[(rows["measure"] == "correlation") & (rows["scale_um"] == SUMMARY_SCALE_UM)]
    found: dict[str, Any] = _of_subjects(at_scale)
    grey = rows[rows["measure"].str.startswith("grey_")].set_index(["subject", "measure"])["value"]
    found["grey"] = {
        subject: {"mean": grey[subject, "grey_mean"], "sd": grey[subject, "grey_deviation"]}
        for subject in ("generated", "real")
        if (subject, "grey_mean") in grey
    }
    borders = rows[rows["measure"].str.endswith("_border_ratio")]
    found["borders"] = {
        measure.removesuffix("_border_ratio"): _of_subjects(part)
        for measure, part in borders.groupby("measure", sort=False)
    }
    nuclei = rows[rows["measure"].str.startswith("nuclei_")]
    found["nuclei"] = {
        measure.removeprefix("nuclei_"): _of_subjects(part)
        for measure, part in nuclei.groupby("measure", sort=False)
    }
    return found


def _of_subjects(rows: pd.DataFrame) -> dict[str, float | None]:
    return {row.subject: None if np.isnan(row.value) else row.value for row in rows.itertuples()}


def _frechet(measures: pd.DataFrame) -> list[dict[str, Any]]:
    """For each stain and area the distance, its floor and the tiles on either side."""
    rows = measures[measures["measure"] == "frechet"]
    return [
        {"stain": stain, "area": area, "tiles": int(part["parts"].iloc[0]), **_of_subjects(part)}
        for (stain, area), part in rows.groupby(["stain", "area"], sort=False)
    ]


def _shared(layout: VolumeLayout, images: zarr.Array[Any], *, where: str) -> Rect:
    """Return the rectangle of the plane that both cover, in at least one section."""
    first, rect = volume_place(layout)
    _, sections, height, width = images.shape
    shared = rect.cut(Rect(0, 0, height, width))
    if not shared.height or first >= sections:
        raise UserError(
            f"{where}: {sections} sections of {height} x {width} pixels share nothing with the "
            f"volume, which starts at section {first} and covers {tuple(rect)} (y, x, height, "
            "width); give images of the same plane"
        )
    return shared
