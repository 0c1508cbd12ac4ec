"""What an evaluation comes down to."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from teramind.evaluate.measure import NUCLEAR_STAIN


def headline(measures: pd.DataFrame) -> dict[str, float]:
    """Means over the sections of the nuclear stain, on the holdout if there is one.

    Args:
        measures: the table that `evaluate` writes.

    Returns:
        `nuclei_f1`, `count_ratio` (nuclei generated over real), `correlation_5um` and
        `patch_border_ratio`; NaN for what the table does not tell.
    """
    area = "holdout" if (measures["area"] == "holdout").any() else "whole"
    rows = measures[(measures["area"] == area) & (measures["stain"] == NUCLEAR_STAIN)]

    def mean(measure: str, subject: str = "generated", **others: Any) -> float:
        chosen = rows[(rows["measure"] == measure) & (rows["subject"] == subject)]
        for key, value in others.items():
            chosen = chosen[chosen[key] == value]
        return float(chosen["value"].mean())

    return {
        "nuclei_f1": mean("nuclei_f1"),
        "count_ratio": mean("nuclei_per_mm2") / (mean("nuclei_per_mm2", "real") or math.nan),
        "correlation_5um": mean("correlation", scale_um=5.0),
        "patch_border_ratio": mean("patch_border_ratio"),
    }
