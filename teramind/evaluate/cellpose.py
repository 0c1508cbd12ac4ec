"""Nuclei by Cellpose (C. Stringer et al., Nature Methods 18, 2021), where it is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from teramind.config.inputs import NEEDED
from teramind.errors import UserError
from teramind.evaluate.nuclei import Finder, Nuclei, measure_labels


def cellpose_finder(weights: str | Path, *, pixel_size_um: float) -> Finder:
    """Return what finds nuclei by Cellpose with the weights of a file.

    Raises:
        UserError: when Cellpose or the file is missing.
    """
    if not Path(weights).is_file():
        raise UserError(f"evaluation.cellpose: no such file: {weights}")
    try:
        from cellpose.models import CellposeModel
    except ImportError:
        raise UserError(NEEDED["cellpose"]) from None
    model = CellposeModel(gpu=False, pretrained_model=str(weights))

    def find(image: NDArray[np.uint8], *, threshold: float) -> Nuclei:
        return measure_labels(image, np.asarray(model.eval(image)[0]), pixel_size_um)

    return find
