"""Whole-slide images: one section as a pyramidal OME-TIFF that viewers open directly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from teramind.files import atomic_path
from teramind.volume import VolumeLayout, open_level, stain_colour, volume_layout

TILE = 512
"""Edge of a TIFF tile in pixels."""
_BUFFER = 2**24
_OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def export_section(*, volume: str | Path, z: int, path: str | Path, name: str) -> None:
    """Write section `z` of a volume, all stains and levels, as a BigTIFF OME-TIFF.

    Each stain is one page, its lower levels are the page's SubIFDs. Only a row of tiles is in
    memory at a time, the bytes depend on the volume and `name` alone, and `path` appears when it
    is complete. ValueError where the volume has no section `z`.
    """
    layout = volume_layout(volume)
    layout.require_section(z)
    with atomic_path(path) as temporary, _writer(temporary) as tiff:
        for level in range(layout.levels):
            _write_level(tiff, layout, volume=volume, z=z, level=level, name=name)


def _writer(path: Path) -> tifffile.TiffWriter:
    return tifffile.TiffWriter(path, bigtiff=True, byteorder="<", ome=False)


def _write_level(
    tiff: tifffile.TiffWriter,
    layout: VolumeLayout,
    *,
    volume: str | Path,
    z: int,
    level: int,
    name: str,
) -> None:
    pixels_per_cm = 1e4 / (layout.pixel_size_um * 2**level)
    top: dict[str, Any] = {"subifds": layout.levels - 1, "description": _ome_xml(layout, z, name)}
    tiff.write(
        _tiles(volume, z, level),
        shape=(layout.shape[0], *layout.plane(level)),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="minisblack",
        compression="adobe_deflate",
        predictor=True,
        resolution=(pixels_per_cm, pixels_per_cm),
        resolutionunit="centimeter",
        software="teramind",
        metadata=None,
        buffersize=_BUFFER,
        **(top if level == 0 else {"subfiletype": 1}),
    )


def _tiles(volume: str | Path, z: int, level: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the tiles of all stains in the file's order, cut off at the plane's edge."""
    array = open_level(volume, level)
    stains, _, height, width = array.shape
    for c in range(stains):
        for y in range(0, height, TILE):
            row = np.asarray(array[c, z, y : y + TILE], np.uint8)
            yield from (row[:, x : x + TILE] for x in range(0, width, TILE))


def _ome_xml(layout: VolumeLayout, z: int, name: str) -> bytes:
    """Describe the file as OME-XML 2016-06; lengths are in micrometres, the schema's default."""
    ome = ElementTree.Element("OME", _schema())
    image = ElementTree.SubElement(ome, "Image", ID="Image:0", Name=name)
    ElementTree.SubElement(image, "Description").text = f"Synthetic {name}, made by teramind"
    pixels = ElementTree.SubElement(image, "Pixels", _pixels(layout))
    for c, stain in enumerate(layout.stains):
        channel = {"ID": f"Channel:0:{c}", "Name": stain, "SamplesPerPixel": "1"}
        ElementTree.SubElement(pixels, "Channel", channel, Color=str(_signed_rgba(stain)))
    for c in range(len(layout.stains)):
        ElementTree.SubElement(
            pixels, "TiffData", IFD=str(c), FirstC=str(c), FirstZ="0", FirstT="0", PlaneCount="1"
        )
    return bytes(ElementTree.tostring(ome, encoding="utf-8", xml_declaration=True))


def _schema() -> dict[str, str]:
    return {
        "xmlns": _OME,
        "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
        "xsi:schemaLocation": f"{_OME} {_OME}/ome.xsd",
        "Creator": "teramind",
    }


def _pixels(layout: VolumeLayout) -> dict[str, str]:
    stains, _, height, width = layout.shape
    return {
        "ID": "Pixels:0",
        "DimensionOrder": "XYZCT",
        "Type": "uint8",
        "SizeX": str(width),
        "SizeY": str(height),
        "SizeZ": "1",
        "SizeC": str(stains),
        "SizeT": "1",
        "PhysicalSizeX": repr(layout.pixel_size_um),
        "PhysicalSizeY": repr(layout.pixel_size_um),
        "PhysicalSizeZ": repr(layout.section_spacing_um),
    }


def _signed_rgba(stain: str) -> int:
    """Return an opaque colour as the schema wants it: 32 bits, red first, signed."""
    return int.from_bytes(bytes.fromhex(f"{stain_colour(stain)}FF"), "big", signed=True)
