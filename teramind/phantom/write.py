"""Writing a phantom in the formats that real data come in, each file complete or absent."""

from __future__ import annotations

from pathlib import Path

import tifffile

from teramind.files import atomic_path
from teramind.phantom.make import STAINS, Phantom

_TILE = (256, 256)


def write_phantom(folder: str | Path, phantom: Phantom) -> None:
    """Write molecules.parquet, images.ome.tif, cells.parquet and panel.txt into `folder`.

    The image is a tiled OME-TIFF with axes CZYX, channel names and physical sizes in um; the
    panel is one gene a line. The folder is created if need be, files of these names replaced.
    """
    folder = Path(folder)
    for name, table in (("molecules", phantom.molecules), ("cells", phantom.cells)):
        with atomic_path(folder / f"{name}.parquet") as path:
            table.to_parquet(path, engine="pyarrow", compression="zstd", index=False)
    with atomic_path(folder / "images.ome.tif") as path:
        _write_images(path, phantom)
    with atomic_path(folder / "panel.txt") as path:
        path.write_text("\n".join(phantom.panel) + "\n", encoding="utf-8")


def _write_images(path: Path, phantom: Phantom) -> None:
    pixel, spacing = phantom.pixel_size_um, phantom.section_spacing_um
    metadata: dict[str, object] = {"axes": "CZYX", "Channel": {"Name": list(STAINS)}}
    for axis, size in zip("XYZ", (pixel, pixel, spacing), strict=True):
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(
        path,
        phantom.images,
        ome=True,
        bigtiff=phantom.images.nbytes > 2**31,
        photometric="minisblack",
        tile=_TILE,
        compression="zlib",
        metadata=metadata,
    )
