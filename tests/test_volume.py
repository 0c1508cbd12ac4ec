"""The volume: other tools read it, and no voxel depends on who wrote it when."""

import json
import random
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ome_zarr_models.v05.image import Image

from teramind.errors import UserError
from teramind.geometry import Rect
from teramind.volume import (
    VolumeLayout,
    build_pyramid,
    create_volume,
    read_volume,
    stain_colour,
    verify_shards,
    volume_layout,
    write_slab,
)

Voxels = NDArray[np.uint8]
STAINS = ("DAPI", "PolyT")


def noise(shape: tuple[int, ...]) -> Voxels:
    """Voxels of which about a third, in blocks of 16 pixels, are background."""
    rng = np.random.default_rng(sum(shape))
    blocks = rng.random((*shape[:2], -(-shape[2] // 16), -(-shape[3] // 16))) > 1 / 3
    tissue = blocks.repeat(16, axis=2).repeat(16, axis=3)[:, :, : shape[2], : shape[3]]
    return (rng.integers(1, 256, shape) * tissue).astype(np.uint8)


def make(path: Path, shape: tuple[int, int, int, int], slab: int, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "pixel_size_um": 0.108,
        "section_spacing_um": 10.0,
        "stains": STAINS[: shape[0]],
        "origin_um": (1.0, 2.0, 3.0),
        "attributes": {"seed": 7, "config": {"steps": 25}},
    }
    create_volume(path, VolumeLayout(shape=shape, slab=slab, **{**settings, **changes}))
    return path


def slabs(voxels: Voxels, slab: int) -> Iterator[dict[str, Any]]:
    for y, x in product(range(0, voxels.shape[2], slab), range(0, voxels.shape[3], slab)):
        yield {"voxels": voxels[:, :, y : y + slab, x : x + slab], "z": 0, "y": y, "x": x}


def fill(path: Path, voxels: Voxels, slab: int) -> list[dict[str, Any]]:
    return [record for part in slabs(voxels, slab) for record in write_slab(path, **part)]


def write_one(path: Path, part: dict[str, Any]) -> list[dict[str, Any]]:
    return write_slab(path, **part)


def content(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def mean_of_blocks(plane: Voxels) -> Voxels:
    """Return the mean of each 2 x 2 block's pixels, half rounded to even, block by block."""
    rows, columns = range(0, plane.shape[0], 2), range(0, plane.shape[1], 2)
    blocks = [[plane[y : y + 2, x : x + 2].astype(float).mean() for x in columns] for y in rows]
    return np.array([[round(mean) for mean in row] for row in blocks], np.uint8)


def test_other_tools_accept_the_volume(tmp_path: Path) -> None:
    voxels = noise((2, 2, 600, 1100))
    path = make(tmp_path / "brain.ome.zarr", voxels.shape, 256)
    fill(path, voxels, 256)
    yaozarrs.validate_zarr_store(str(path))
    image = Image.from_zarr(zarr.open_group(path, mode="r"))
    assert [axis.name for axis in image.ome_attributes.multiscales[0].axes] == list("czyx")
    assert len(image.ome_attributes.multiscales[0].datasets) == 3
    assert [channel["label"] for channel in image.ome_attributes.omero["channels"]] == list(STAINS)


def test_every_level_lies_at_the_same_place(tmp_path: Path) -> None:
    """The outer corner of the first pixel is the same point at every level."""
    path = make(tmp_path / "v", (1, 1, 2048, 300), 512)
    ome = zarr.open_group(path, mode="r").attrs["ome"]
    for dataset in ome["multiscales"][0]["datasets"]:
        scale, translation = dataset["coordinateTransformations"]
        corner = np.subtract(translation["translation"], np.divide(scale["scale"], 2))
        assert corner[2:] == pytest.approx([2.0 - 0.054, 3.0 - 0.054])
        assert (scale["scale"][1], translation["translation"][1]) == (10.0, 1.0)


def test_viewers_get_a_name_a_colour_and_a_window(tmp_path: Path) -> None:
    path = make(tmp_path / "v", (2, 1, 64, 64), 64)
    channels = zarr.open_group(path, mode="r").attrs["ome"]["omero"]["channels"]
    assert [channel["color"] for channel in channels] == ["0000FF", "FFB000"]  # blue, amber
    assert all((c["window"]["start"], c["window"]["end"]) == (0, 255) for c in channels)
    assert stain_colour("unknown") == "FFFFFF"


def test_the_volume_says_that_it_is_synthetic(tmp_path: Path) -> None:
    path = make(tmp_path / "v", (1, 1, 64, 64), 64, attributes={"seed": 1, "synthetic": False})
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]["teramind"]
    assert attributes == {"seed": 1, "synthetic": True}


@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    slab=st.sampled_from([32, 48, 100, 512, 768, 1040, 2048, 4096]),
)
@settings(max_examples=25)
def test_every_shard_of_every_level_belongs_to_one_slab(height: int, width: int, slab: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = make(Path(folder) / "v", (1, 1, height, width), slab)
        layout = volume_layout(path)
        arrays = [zarr.open_array(path / str(n), mode="r") for n in range(layout.levels)]
        for n, array in enumerate(arrays):
            assert array.shards == (1, 1, slab / 2**n, slab / 2**n)
            assert array.shape[2:] == (-(-height // 2**n), -(-width // 2**n))
            chunk = array.chunks[-1]
            assert chunk <= 512
            assert array.shards[-1] % chunk == 0
            assert not any(array.shards[-1] % edge == 0 for edge in range(chunk + 1, 513))
        small = max(arrays[-1].shape[2:]) <= 512
        assert small or slab % 2**layout.levels or slab / 2**layout.levels < 32
        assert all(max(array.shape[2:]) > 512 for array in arrays[:-1])


def test_the_layout_comes_back(tmp_path: Path) -> None:
    layout = volume_layout(make(tmp_path / "v", (2, 3, 700, 90), 128))
    assert (layout.shape, layout.slab, layout.levels) == ((2, 3, 700, 90), 128, 2)
    assert (layout.pixel_size_um, layout.section_spacing_um) == (0.108, 10.0)
    assert (layout.stains, layout.origin_um) == (STAINS, (1.0, 2.0, 3.0))
    assert layout.attributes == {"seed": 7, "config": {"steps": 25}, "synthetic": True}


def test_creating_the_same_volume_again_changes_nothing(tmp_path: Path) -> None:
    voxels = noise((2, 1, 100, 100))
    path = make(tmp_path / "v", voxels.shape, 64)
    fill(path, voxels, 64)
    before = content(path)
    make(path, voxels.shape, 64)
    assert content(path) == before


@pytest.mark.parametrize(
    ("slab", "changes", "named"),
    [
        (32, {}, "slab 64, asked for 32"),
        (64, {"pixel_size_um": 0.2}, "pixel_size_um 0.108, asked for 0.2"),
        (64, {"stains": ("DAPI", "GFAP")}, "stains"),
        (64, {"attributes": {"seed": 7, "config": {"steps": 5}}}, "attributes.config.steps 25"),
        (64, {"attributes": {"config": {"steps": 25}}}, "attributes.seed 7, asked for None"),
    ],
)
def test_another_volume_in_its_place_is_the_users_mistake(
    tmp_path: Path, slab: int, changes: dict[str, Any], named: str
) -> None:
    path = make(tmp_path / "v", (2, 1, 100, 100), 64)
    with pytest.raises(UserError, match=named) as caught:
        make(path, (2, 1, 100, 100), slab, **changes)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_volume_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a volume"):
        volume_layout(tmp_path / "absent")


@pytest.mark.parametrize("shape", [(2, 1, 0, 5), (3, 1, 5, 5), (2, 0, 5, 5)])
def test_an_impossible_shape_writes_nothing(
    tmp_path: Path, shape: tuple[int, int, int, int]
) -> None:
    with pytest.raises(ValueError, match="no volume has shape"):
        make(tmp_path / "v", shape, 64, stains=STAINS)
    assert not any(tmp_path.iterdir())


@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 150), st.integers(1, 150)),
    slab=st.sampled_from([32, 48, 64, 150]),
    seed=st.integers(0, 9),
)
@example(shape=(1, 1, 1, 1), slab=32, seed=0)
@example(shape=(2, 3, 130, 64), slab=64, seed=0)
@settings(max_examples=10)
def test_slabs_in_any_order_make_the_volume(
    shape: tuple[int, int, int, int], slab: int, seed: int
) -> None:
    voxels = noise(shape)
    with tempfile.TemporaryDirectory() as folder:
        path = make(Path(folder) / "v", shape, slab)
        parts = list(slabs(voxels, slab))
        random.Random(seed).shuffle(parts)
        records = [record for part in parts for record in write_slab(path, **part)]
        np.testing.assert_array_equal(read_volume(path), voxels)
        files = {
            str(file.relative_to(path)) for file in (path / "0" / "c").rglob("*") if file.is_file()
        }
        assert files == {record["path"] for record in records if record["bytes"]}
        assert len(records) == shape[0] * shape[1] * len(parts)
        assert verify_shards(path, records) == []


def test_sections_may_be_written_apart(tmp_path: Path) -> None:
    voxels = noise((2, 3, 60, 90))
    path = make(tmp_path / "v", voxels.shape, 96)
    for z in (2, 0):
        write_slab(path, voxels=voxels[:, z : z + 1], z=z, y=0, x=0)
    np.testing.assert_array_equal(read_volume(path)[:, [0, 2]], voxels[:, [0, 2]])
    assert not read_volume(path, z=1).any()


def test_four_processes_lose_nothing(tmp_path: Path) -> None:
    voxels = noise((2, 2, 230, 250))
    path = make(tmp_path / "v", voxels.shape, 64)
    parts = list(slabs(voxels, 64))
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        written = list(pool.map(write_one, [path] * len(parts), parts))
    np.testing.assert_array_equal(read_volume(path), voxels)
    assert verify_shards(path, [record for records in written for record in records]) == []


def test_background_takes_no_file(tmp_path: Path) -> None:
    voxels = np.zeros((2, 1, 64, 64), np.uint8)
    voxels[1] = 9
    path = make(tmp_path / "v", voxels.shape, 64)
    dark, light = write_slab(path, voxels=voxels, z=0, y=0, x=0)
    assert dark == {"path": "0/c/0/0/0/0", "bytes": 0, "blake2b": None}
    assert not (path / dark["path"]).exists()
    assert (path / light["path"]).stat().st_size == light["bytes"] > 0


def test_a_killed_write_is_repeated_to_the_same_bytes(tmp_path: Path) -> None:
    voxels = noise((2, 2, 100, 100))
    path = make(tmp_path / "v", voxels.shape, 64)
    records = fill(path, voxels, 64)
    before = content(path)
    for record in records:
        shard = path / record["path"]
        shard.parent.mkdir(parents=True, exist_ok=True)
        shard.write_bytes(b"half of a shard")
    assert fill(path, voxels, 64) == records
    assert content(path) == before


@pytest.mark.parametrize(
    ("cut", "place"),
    [
        (np.s_[:, :, :64, :63], (0, 0, 0)),
        (np.s_[:, :, :32, :64], (0, 32, 0)),
        (np.s_[:, :, :64, :64], (0, 0, 64)),
        (np.s_[:, :, :64, :64], (1, 0, 0)),
        (np.s_[:1, :, :64, :64], (0, 0, 0)),
        (np.s_[:, :0, :64, :64], (0, 0, 0)),
        (np.s_[:, :, :64, :64], (0, -64, 0)),
        (np.s_[:, :, :0, :64], (0, 128, 0)),
    ],
)
def test_only_whole_slabs_are_written(
    tmp_path: Path, cut: tuple[slice, ...], place: tuple[int, int, int]
) -> None:
    voxels = noise((2, 2, 100, 100))
    path = make(tmp_path / "v", voxels.shape, 64)
    z, y, x = place
    with pytest.raises(ValueError, match="not one slab"):
        write_slab(path, voxels=voxels[cut], z=z, y=y, x=x)
    assert not (path / "0" / "c").exists()


def test_only_grey_levels_are_written(tmp_path: Path) -> None:
    path = make(tmp_path / "v", (1, 1, 64, 64), 64)
    with pytest.raises(ValueError, match="float64"):
        write_slab(path, voxels=np.zeros((1, 1, 64, 64)), z=0, y=0, x=0)


@pytest.mark.parametrize(
    ("shape", "slab"), [((2, 2, 129, 1031), 256), ((1, 1, 3, 1025), 512), ((1, 1, 520, 200), 2048)]
)
def test_the_pyramid_is_the_mean_of_what_lies_below(
    tmp_path: Path, shape: tuple[int, int, int, int], slab: int
) -> None:
    voxels = noise(shape)
    path = make(tmp_path / "v", shape, slab)
    fill(path, voxels, slab)
    records = [record for z in range(shape[1]) for record in build_pyramid(path, z=z)]
    levels = volume_layout(path).levels
    assert levels > 1
    for c, z in product(range(shape[0]), range(shape[1])):
        plane = voxels[c, z]
        for level in range(1, levels):
            plane = mean_of_blocks(plane)
            np.testing.assert_array_equal(read_volume(path, level=level, z=z)[c, 0], plane)
    per_level = shape[0] * shape[1] * len(list(slabs(voxels, slab)))
    assert len({record["path"] for record in records}) == per_level * (levels - 1)
    assert verify_shards(path, records) == []


def test_a_level_is_as_bright_as_the_voxels(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(60, 200, (1, 1, 1024, 1024), np.uint8)
    path = make(tmp_path / "v", voxels.shape, 1024)
    fill(path, voxels, 1024)
    build_pyramid(path, z=0)
    assert read_volume(path, level=1).mean() == pytest.approx(voxels.mean(), abs=0.02)


def test_a_shard_that_is_written_again_is_never_away(tmp_path: Path, monkeypatch: Any) -> None:
    """As when a job that outlived its run and its successor write the same slab."""
    voxels = noise((1, 1, 80, 80))
    path = make(tmp_path / "v", voxels.shape, 64)
    records, removed = fill(path, voxels, 64), []
    monkeypatch.setattr(Path, "unlink", lambda shard, **_: removed.append(shard))
    assert fill(path, voxels, 64) == records
    assert removed == []


def test_building_the_pyramid_again_gives_the_same_bytes(tmp_path: Path) -> None:
    voxels = noise((1, 1, 300, 600))
    path = make(tmp_path / "v", voxels.shape, 256)
    fill(path, voxels, 256)
    first, before = build_pyramid(path, z=0), content(path)
    assert build_pyramid(path, z=0) == first
    assert content(path) == before


@pytest.mark.parametrize("z", [-1, 3])
def test_an_absent_section_has_no_pyramid(tmp_path: Path, z: int) -> None:
    path = make(tmp_path / "v", (1, 3, 300, 600), 256)
    with pytest.raises(ValueError, match="sections 0 to 2"):
        build_pyramid(path, z=z)


def test_a_part_is_read_as_cut_out_of_the_whole(tmp_path: Path) -> None:
    voxels = noise((2, 3, 100, 120))
    path = make(tmp_path / "v", voxels.shape, 64)
    fill(path, voxels, 64)
    part = read_volume(path, rect=Rect(50, 60, 30, 20), z=1)
    np.testing.assert_array_equal(part, voxels[:, 1:2, 50:80, 60:80])


@pytest.mark.parametrize(
    "where", [{"rect": Rect(90, 0, 20, 5)}, {"rect": Rect(0, -1, 5, 5)}, {"z": 3}]
)
def test_nothing_is_read_outside_the_volume(tmp_path: Path, where: dict[str, Any]) -> None:
    path = make(tmp_path / "v", (2, 3, 100, 120), 64)
    with pytest.raises(ValueError, match="not inside"):
        read_volume(path, **where)


def test_damaged_missing_and_unexpected_shards_are_named(tmp_path: Path) -> None:
    voxels = noise((1, 1, 64, 128))
    voxels[..., 96:] = 0
    path = make(tmp_path / "v", voxels.shape, 32)
    records = fill(path, voxels, 32)
    good, damaged, missing = (path / record["path"] for record in records[:3])
    unexpected = path / records[3]["path"]
    assert records[3]["bytes"] == 0
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    missing.unlink()
    unexpected.write_bytes(good.read_bytes())
    lines = verify_shards(path, records)
    assert [line.split()[0] for line in lines] == [str(damaged), str(missing), str(unexpected)]
    assert "differs" in lines[0]
    assert "missing" in lines[1]
    assert "absent" in lines[2]
