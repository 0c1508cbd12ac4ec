"""Voxels in and out of a volume, one whole shard at a time.

A shard holds one section of one slab at one level, of one stain or, in volumes that keep channels
together, of all. Nothing here writes a part of
a shard: two writers in one shard lose voxels without an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from teramind.files import atomic_path, digest, naming, require_inside
from teramind.geometry import Rect
from teramind.volume.layout import VolumeLayout, create_level, volume_layout

Voxels = NDArray[Any]
"""uint8 grey levels, or float32 values: whatever the volume's type is."""
Record = dict[str, Any]
"""A shard's "path" relative to the volume, its "bytes" and "blake2b"; 0 and None if absent."""


def write_slab(path: str | Path, *, voxels: Voxels, z: int, y: int, x: int) -> list[Record]:
    """Write one slab at level 0 and return the records of its shards, stain by stain.

    `voxels` is (c, z, h, w), every channel of some sections; `z` is the first section, `y`
    and `x` the slab's first pixel. Shards of background (all zero) are left out. The bytes depend
    on the voxels alone, so a write that was killed can be repeated. ValueError unless the voxels
    are exactly the slab or what the volume's edge leaves of it.
    """
    layout = volume_layout(path)
    _require_whole_slab(layout, voxels, z, y, x)
    (stains, sections), step = voxels.shape[:2], layout.together
    row, column = y // layout.slab, x // layout.slab
    return [
        _write_shard(path, layout, voxels[c : c + step, k], (0, c // step, z + k, row, column))
        for c, k in product(range(0, stains, step), range(sections))
    ]


def build_pyramid(path: str | Path, *, z: int) -> list[Record]:
    """Write all levels above 0 of section `z` and return the records of their shards.

    A pixel is the mean of the 2 x 2 pixels below it, or of those the volume's edge leaves; grey
    levels are rounded half to even, so that levels do not grow brighter. One shard of level 0 is in
    memory at a time. ValueError where there is no such section.
    """
    layout = volume_layout(path)
    layout.require_section(z)
    array = open_level(path, 0)
    records, step, plane = [], layout.together, Rect(0, 0, *layout.plane(0))
    for c, rect in product(range(0, layout.shape[0], step), plane.blocks(layout.slab)):
        planes = np.asarray(array[c : c + step, z, *rect.slices])
        for level in range(1, layout.levels):
            planes = _halve(planes)
            key = (level, c // step, z, rect.y // layout.slab, rect.x // layout.slab)
            records.append(_write_shard(path, layout, planes, key))
    return records


def read_volume(
    path: str | Path, *, level: int = 0, rect: Rect | None = None, z: int | None = None
) -> Voxels:
    """Read voxels (c, z, y, x) of one level: all of them, a rectangle, one section or both.

    `rect` is in pixels of that level and must lie inside it, else ValueError; `z` keeps the axis
    of sections, with length 1.
    """
    array = open_level(path, level)
    _, sections, height, width = array.shape
    rect = rect or Rect(0, 0, height, width)
    inside = rect.y >= 0 and rect.x >= 0 and rect.bottom <= height and rect.right <= width
    if not inside or (z is not None and not 0 <= z < sections):
        raise ValueError(f"{rect}, z={z} is not inside {path} level {level}, {array.shape}")
    chosen = slice(None) if z is None else slice(z, z + 1)
    return np.asarray(array[:, chosen, *rect.slices])


def verify_shards(path: str | Path, records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Compare shards with their records; a line for each missing, different or unreadable one."""
    lines = []
    for wanted in records:
        shard = Path(path) / wanted["path"]
        try:
            found = _record(path, wanted["path"])
        except OSError as error:
            lines.append(f"{shard} cannot be read: {error.strerror}")
            continue
        if found != wanted:
            lines.append(f"{shard} {_fault(found, wanted)}")
    return lines


def open_level(path: str | Path, level: int) -> zarr.Array[Any]:
    """Open the array (c, z, y, x) of one level for reading."""
    return zarr.open_array(path, path=str(level), mode="r", zarr_format=3)


def _require_whole_slab(layout: VolumeLayout, voxels: Voxels, z: int, y: int, x: int) -> None:
    stains, sections, height, width = layout.shape
    edge = min(layout.slab, height - y), min(layout.slab, width - x)
    if (
        voxels.dtype != layout.dtype
        or voxels.shape != (stains, voxels.shape[1], *edge)
        or not 0 <= z < z + voxels.shape[1] <= sections
        or min(y, x) < 0
        or y % layout.slab
        or x % layout.slab
    ):
        raise ValueError(
            f"voxels {voxels.dtype} {voxels.shape} at z={z}, y={y}, x={x} are not one slab of "
            f"{layout.slab} pixels in {layout.dtype} {layout.shape}"
        )


def _write_shard(
    path: str | Path, layout: VolumeLayout, planes: Voxels, key: tuple[int, int, int, int, int]
) -> Record:
    """Replace the shard at `key` (level, shard along c, z, slab row, column) by `planes` (c, y, x).

    It is made in memory, where zarr finds no old one, damaged or not, to fill up a shard that the
    volume's edge cuts off. It is never away while another job writes the same.
    """
    level, c, z, row, column = key
    made: dict[str, Any] = {}
    array = create_level(zarr.create_group(MemoryStore(made), zarr_format=3), layout, level)
    step, _, height, width = cast(tuple[int, ...], array.shards)
    y, x = row * height, column * width
    rows, cols = slice(y, y + planes.shape[1]), slice(x, x + planes.shape[2])
    array[c * step : (c + 1) * step, z, rows, cols] = planes
    relative = f"{level}/{array.metadata.encode_chunk_key((c, z, row, column))}"
    shard = Path(path) / relative
    require_inside(shard, path)
    if relative not in made:
        with naming(shard):
            shard.unlink(missing_ok=True)
    else:
        with atomic_path(shard) as temporary:
            temporary.write_bytes(made[relative].to_bytes())
    return _record(path, relative)


def _record(path: str | Path, relative: str) -> Record:
    shard = Path(path) / relative
    if not shard.exists():
        return {"path": relative, "bytes": 0, "blake2b": None}
    return {"path": relative, "bytes": shard.stat().st_size, "blake2b": digest(shard)}


def _fault(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    if found["blake2b"] is None:
        return "is missing"
    if wanted["blake2b"] is None:
        return "should be absent: its record says background"
    return f"differs: {found['bytes']} bytes, {wanted['bytes']} recorded, or another digest"


def _halve(planes: Voxels) -> Voxels:
    """Average 2 x 2 pixels; repeating an odd edge makes it the mean of the pixels there are."""
    _, height, width = planes.shape
    even = np.pad(planes, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    grey = planes.dtype == np.uint8
    rows = even[:, 0::2].astype(np.uint16 if grey else np.float64) + even[:, 1::2]
    four = rows[:, :, 0::2] + rows[:, :, 1::2]
    return (np.rint(four / 4) if grey else four / 4).astype(planes.dtype)
