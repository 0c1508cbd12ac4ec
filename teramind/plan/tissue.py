"""Where there is tissue, patch by patch, read off the raster's bins alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from teramind.engine.generate import dilate
from teramind.expression.raster import Raster
from teramind.geometry import Layout

Mask = NDArray[np.bool_]


def wanted_patches(raster: Raster, layout: Layout, *, margin: int) -> list[Mask]:
    """Patches wanted of the last step, a mask (patch y, patch x) of the bounds per window.

    They lie inside the region and within `margin` patches of expression, as `Generator.needed`
    has it. The raster is read once, a row of blocks at a time.
    """
    p, around = layout.patch, layout.region.grown(margin * layout.patch)
    rows, cols = around.height // p, around.width // p
    of_section = [
        raster.occupied(section=section, rect=around, edge=p) for section in range(raster.sections)
    ]
    masks = []
    for window in range(len(layout.windows)):
        tissue = np.zeros((rows, cols), bool)
        for section in layout.windows.expression(window):
            if 0 <= section < raster.sections:
                tissue |= of_section[section]
        inner = dilate(tissue, margin)[margin : rows - margin, margin : cols - margin]
        whole = np.zeros((layout.bounds.height // p, layout.bounds.width // p), bool)
        whole[layout.region.within(layout.bounds, step=p)] = inner
        masks.append(whole)
    return masks
