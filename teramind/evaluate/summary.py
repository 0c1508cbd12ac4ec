"""What an evaluation's table comes down to, for the report and for programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

SUMMARY_SCALE_UM = 5.0
"""Smoothing of the correlations in the summary."""

NOTES = {
    "correlation": "Pearson r of two images after Gaussian smoothing (standard deviation "
    "scale_um) of the area's own pixels; empty where one of the two is constant.",
    "density": "Molecules of all genes per bin of 16 x 16 pixels, the same value on every pixel of "
    "a bin. It knows positions to a bin only: the raster holds no finer ones.",
    "regression": "Grey level as a linear function of a bin's counts of every gene, fitted on all "
    "bins outside the holdout; without a holdout on all bins, and then flattered.",
    "neighbour": "The real image of the next section (of the one before for the last): how well "
    "real tissue predicts itself.",
    "interval": "low and high: 95 %, from drawing parts of the area again with replacement, of "
    "25 um at least and as large as leaves 30; too narrow where tissue changes over more than a "
    "part's width.",
    "log10_power_ratio": "Power of the generated image over the real one's, wavelengths from "
    "scale_um to twice that.",
    "border_ratio": "Mean squared step between pixels across borders of patches or slabs, over "
    "that inside patches, a quarter of a patch from their borders; 1 where no border shows.",
    "frechet": "Squared Frechet distance of the features of tiles of 128 pixels, covariances "
    "shrunk, all sections together. Generated: generated tiles from real ones of other places; "
    "real: the floor, real tiles from those same real ones. parts: tiles on either side.",
    "nuclei": "Otsu threshold of each image and watershed, or Cellpose; f1: as many pairs as "
    "possible of a nucleus and a real one within 4 um, both in the area; nuclei in pairs over all.",
    "whole": "The part of the plane that volume and reference share, background and training area "
    "included. Of this plane's images only the holdout was kept from training.",
}


def by_section(measures: pd.DataFrame) -> list[dict[str, Any]]:
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


def distances(measures: pd.DataFrame) -> list[dict[str, Any]]:
    """For each stain and area the distance, its floor and the tiles on either side."""
    rows = measures[measures["measure"] == "frechet"]
    return [
        {"stain": stain, "area": area, "tiles": int(part["parts"].iloc[0]), **_of_subjects(part)}
        for (stain, area), part in rows.groupby(["stain", "area"], sort=False)
    ]
