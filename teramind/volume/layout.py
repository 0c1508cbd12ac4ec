"""What a volume looks like before its first voxel: shape, levels, shards and OME-NGFF metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import zarr
from zarr.codecs import ZstdCodec

from teramind.errors import UserError, foreign
from teramind.files import atomic_path

AXES = ("c", "z", "y", "x")
MAX_CHUNK = 512
"""Longest edge of an inner chunk; a plane no longer than this needs no further level."""
MIN_SHARD = 32
"""Shortest edge of a shard at any level above the first."""
_COLOURS = {"DAPI": "0000FF", "PolyT": "FFB000"}


class OtherVolumeError(UserError):
    """A volume of another layout is where one is asked for."""


@dataclass(frozen=True, kw_only=True)
class VolumeLayout:
    """Everything about a volume but its voxels.

    `shape` is (c, z, y, x) in pixels at level 0, `slab` the edge of a slab in pixels on the grid
    anchored at pixel (0, 0), `origin_um` the (z, y, x) position of the first pixel's centre.
    """

    shape: tuple[int, int, int, int]
    slab: int
    pixel_size_um: float
    section_spacing_um: float
    stains: tuple[str, ...]
    origin_um: tuple[float, float, float] = (0.0, 0.0, 0.0)
    attributes: Mapping[str, Any]
    dtype: str = "uint8"
    """Type of the voxels: uint8 grey levels, or float32 values."""
    colours: tuple[str, ...] = ()
    """RRGGBB of each channel; by default those of the stains."""
    white: float = 255.0
    """Value that viewers show at full brightness at first."""
    together: int = 1
    """Channels in one shard; divides their number."""

    @property
    def levels(self) -> int:
        """Number of pyramid levels, at least one.

        There is one more level while the plane is longer than a chunk and the slab halves into
        whole pixels, so that a shard of any level belongs to exactly one slab.
        """
        level = 0
        while (
            max(self.plane(level)) > MAX_CHUNK
            and self.shard(level) % 2 == 0
            and self.shard(level) // 2 >= MIN_SHARD
        ):
            level += 1
        return level + 1

    def plane(self, level: int) -> tuple[int, int]:
        """Return (height, width) of a section at `level` in that level's pixels."""
        _, _, height, width = self.shape
        return -(-height // 2**level), -(-width // 2**level)

    def shard(self, level: int) -> int:
        """Return the edge of a shard at `level` in that level's pixels."""
        return self.slab >> level

    def chunk(self, level: int) -> int:
        """Return the edge of an inner chunk: the longest that divides the shard, up to 512."""
        shard = self.shard(level)
        return next(edge for edge in range(min(shard, MAX_CHUNK), 0, -1) if shard % edge == 0)

    def require_section(self, z: int) -> None:
        """Raise ValueError unless the volume has section `z`."""
        if not 0 <= z < self.shape[1]:
            raise ValueError(f"the volume has sections 0 to {self.shape[1] - 1}, not {z}")


def create_volume(path: str | Path, layout: VolumeLayout) -> None:
    """Create an empty volume with all its levels and metadata.

    Its attributes (JSON values) go under the key `teramind`, marked synthetic. A volume that is
    already there with the same layout is left alone.

    Raises:
        OtherVolumeError: when one of another layout is there.
        ValueError: when the shape cannot be one.
    """
    shape, stains = layout.shape, layout.stains
    if min(*shape, layout.slab) < 1 or shape[0] != len(stains) or shape[0] % layout.together:
        raise ValueError(f"no volume has shape {shape}, slab {layout.slab} and stains {stains}")
    attributes = json.dumps({**layout.attributes, "synthetic": True}, allow_nan=False)
    colours = layout.colours or tuple(map(stain_colour, stains))
    wanted = replace(layout, attributes=json.loads(attributes), colours=colours)
    if Path(path).exists():
        _require_same(path, volume_layout(path), wanted)
    else:
        with atomic_path(path) as temporary:
            _create(temporary, wanted)


def volume_layout(path: str | Path) -> VolumeLayout:
    """Read a volume's layout from its metadata; UserError where there is no such volume."""
    if not Path(path, "zarr.json").is_file():
        raise UserError(f"{path} is not a volume of teramind: create it first")
    with foreign(f"{path}: damaged, or not a volume of teramind"):
        return _read_layout(path)


def _read_layout(path: str | Path) -> VolumeLayout:
    group = zarr.open_group(path, mode="r", zarr_format=3)
    attributes = cast(dict[str, Any], group.attrs.asdict())
    ome, ours = attributes["ome"], attributes["teramind"]
    array = zarr.open_array(path, path="0", mode="r", zarr_format=3)
    shards = cast(tuple[int, ...], array.shards)
    scale, translation = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    channels = ome["omero"]["channels"]
    return VolumeLayout(
        shape=cast(tuple[int, int, int, int], array.shape),
        slab=shards[-1],
        pixel_size_um=float(scale["scale"][3]),
        section_spacing_um=float(scale["scale"][1]),
        stains=tuple(channel["label"] for channel in channels),
        origin_um=tuple(translation["translation"][1:]),
        attributes=dict(ours),
        dtype=str(array.dtype),
        colours=tuple(channel["color"] for channel in channels),
        white=channels[0]["window"]["end"],
        together=shards[0],
    )


def stain_colour(stain: str) -> str:
    """Return the display colour of a stain as RRGGBB; white for one we do not know."""
    return _COLOURS.get(stain, "FFFFFF")


def _create(path: Path, layout: VolumeLayout) -> None:
    attributes = {"ome": _ome(layout), "teramind": dict(layout.attributes)}
    group = zarr.create_group(path, zarr_format=3, attributes=attributes)
    for level in range(layout.levels):
        create_level(group, layout, level)


def create_level(group: zarr.Group, layout: VolumeLayout, level: int) -> zarr.Array[Any]:
    """Create the empty array of one level."""
    shard, chunk = layout.shard(level), layout.chunk(level)
    return group.create_array(
        str(level),
        shape=(*layout.shape[:2], *layout.plane(level)),
        shards=(layout.together, 1, shard, shard),
        chunks=(1, 1, chunk, chunk),
        dtype=layout.dtype,
        fill_value=0,
        compressors=ZstdCodec(level=1),
        dimension_names=AXES,
        config={"write_empty_chunks": False},
    )


def _ome(layout: VolumeLayout) -> dict[str, Any]:
    space = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in AXES[1:]]
    multiscale = {
        "axes": [{"name": "c", "type": "channel"}, *space],
        "datasets": [_dataset(layout, level) for level in range(layout.levels)],
        "type": "mean",
    }
    named = zip(layout.stains, layout.colours, strict=True)
    omero = {"channels": [_channel(name, colour, layout.white) for name, colour in named]}
    return {"version": "0.5", "multiscales": [multiscale], "omero": omero}


def _dataset(layout: VolumeLayout, level: int) -> dict[str, Any]:
    """Place a level: its first pixel averages 2^n pixels, so its centre lies (2^n - 1) / 2 on."""
    pixel = layout.pixel_size_um * 2**level
    z, y, x = layout.origin_um
    shift = layout.pixel_size_um * (2**level - 1) / 2
    return {
        "path": str(level),
        "coordinateTransformations": [
            {"type": "scale", "scale": [1.0, layout.section_spacing_um, pixel, pixel]},
            {"type": "translation", "translation": [0.0, z, y + shift, x + shift]},
        ],
    }


def _channel(name: str, colour: str, white: float) -> dict[str, Any]:
    end = int(white) if white.is_integer() else white
    return {
        "label": name,
        "color": colour,
        "active": True,
        "window": {"min": 0, "start": 0, "end": end, "max": end},
    }


def _require_same(path: str | Path, found: VolumeLayout, wanted: VolumeLayout) -> None:
    for name, old, new in _differences(vars(found), vars(wanted)):
        raise OtherVolumeError(
            f"{path} exists with {name} {old!r}, asked for {new!r}: remove it or write elsewhere"
        )


def _differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    for name in {**found, **wanted}:
        old, new = found.get(name), wanted.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from ((f"{name}.{inner}", *pair) for inner, *pair in _differences(old, new))
        elif old != new:
            yield name, old, new
