"""Writing a phantom in the formats that real data come in, each file complete or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import tifffile
from numpy.typing import NDArray

from teramind.files import atomic_path
from teramind.phantom.make import STAINS, Phantom

FILES = (
    "molecules.parquet",
    "cells.parquet",
    "images.ome.tif",
    "nuclei.ome.tif",
    "regions.tif",
    "regions.csv",
    "panel.txt",
)
"""Names of a phantom's files."""

_TILE = (256, 256)


def write_phantom(folder: str | Path, phantom: Phantom) -> None:
    """Write a phantom's files into `folder`, which is created if need be; files there are replaced.

    molecules.parquet and cells.parquet; images.ome.tif (CZYX) and nuclei.ome.tif (ZYX, the id of
    the cell at each pixel), with names and physical sizes in um; regions.tif (YX) and regions.csv,
    the names of its labels; panel.txt, one gene a line.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    regions = pd.DataFrame(
        {"label": range(len(phantom.region_names)), "name": phantom.region_names}
    )
    for name, table in (("molecules", phantom.molecules), ("cells", phantom.cells)):
        with atomic_path(folder / f"{name}.parquet") as path:
            table.to_parquet(path, engine="pyarrow", compression="zstd", index=False)
    with atomic_path(folder / "images.ome.tif") as path:
        _write_stack(path, phantom, phantom.images, axes="CZYX", Channel={"Name": list(STAINS)})
    with atomic_path(folder / "nuclei.ome.tif") as path:
        _write_stack(path, phantom, phantom.nuclei, axes="ZYX")
    with atomic_path(folder / "regions.tif") as path:
        tifffile.imwrite(path, phantom.regions, tile=_TILE, compression="zlib")
    with atomic_path(folder / "regions.csv") as path:
        regions.to_csv(path, index=False)
    with atomic_path(folder / "panel.txt") as path:
        path.write_text("\n".join(phantom.panel) + "\n", encoding="utf-8")


def _write_stack(path: Path, phantom: Phantom, stack: NDArray[Any], **metadata: object) -> None:
    pixel, spacing = phantom.pixel_size_um, phantom.section_spacing_um
    for axis, size in zip("XYZ", (pixel, pixel, spacing), strict=True):
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(
        path,
        stack,
        ome=True,
        bigtiff=stack.nbytes > 2**31,
        photometric="minisblack",
        tile=_TILE,
        compression="zlib",
        metadata=metadata,
    )
