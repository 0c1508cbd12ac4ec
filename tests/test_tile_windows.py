"""Published training tiles are learned from as in the release, without the mouse that is drawn."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from training_tiles import (
    NAMES,
    PLANES,
    SPAN,
    tile_name,
    two_mice,
    write_image,
    write_list,
    write_pair,
)

from teramind.errors import UserError
from teramind.geometry import BIN
from teramind.network import Network, NetworkSpec
from teramind.training.objective import window_loss
from teramind.training.tile_windows import TileWindows, listed_tiles

SECOND = (20, 8)
"""Pixels from a molecule to its second one; all turns and flips of it differ."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of the tiles of two mice."""
    return two_mice(tmp_path_factory.mktemp("published"))


def spec_of(patch=32, sections=4, stains=("DAPI", "PolyT"), panel=("c", "a")):
    return NetworkSpec(
        patch=patch,
        sections=sections,
        stains=stains,
        genes=len(panel),
        base=2,
        embed=8,
        panel=panel,
    )


def windows_of(data, spec, tiles=None, **changes):
    if tiles is None:
        tiles = listed_tiles([data / "1.csv"], data)["1"]
    options = {"names": NAMES, "genes": len(NAMES), "sections": PLANES, "edge": 2}
    options |= {"batch": 2, "seed": 0}
    return TileWindows(tiles, spec, **options | changes)


@pytest.mark.parametrize("sections", [1, 4, 8, 16])
@pytest.mark.parametrize("patch", [32, 64, 128])
def test_a_batch_has_the_shapes_that_the_loss_takes(data, patch, sections):
    spec = spec_of(patch, sections)
    if sections == 16:
        with pytest.raises(UserError, match="6 sections are too few for windows of 16"):
            windows_of(data, spec, sections=6)
        return
    batch = windows_of(data, spec)(0)
    size, bins = 2 * patch, patch // BIN
    assert batch.image.shape == batch.noise.shape == (2, spec.channels, size, size)
    assert batch.inside.shape == batch.image.shape
    assert batch.counts.shape == (2, 4, bins, bins, sections, 2)
    assert (batch.image[~batch.inside] == -1).all()
    if patch == 32:
        loss = window_loss(Network(spec), **batch._asdict(), outside=0.0, aligned=True)
        assert torch.isfinite(loss)


def test_windows_are_a_function_of_seed_and_step_and_cut_by_shares(data):
    spec = spec_of()
    windows, again = (windows_of(data, spec, batch=4) for _ in range(2))
    for step in (3, 0, 3):
        assert all(map(torch.equal, windows(step), again(step)))
    whole, share = windows(5), again(5, slice(1, 3))
    for all_of_it, part in zip(whole, share, strict=True):
        assert torch.equal(all_of_it[1:3], part)
    assert not torch.equal(windows(0).image, windows_of(data, spec, seed=1, batch=4)(0).image)


@pytest.mark.parametrize(
    ("sections", "stains"), [(1, ("DAPI", "PolyT")), (4, ("PolyT",)), (8, ("DAPI", "PolyT"))]
)
def test_images_and_counts_are_cut_and_turned_together(tmp_path, sections, stains):
    random = np.random.default_rng(1)
    y, x = 64 * np.indices((8, 8)).reshape(2, 64) + random.integers(0, 24, (2, 64))
    gene = random.choice([0, 2], 64)
    points = np.stack([y, x, random.integers(0, PLANES, 64), gene], 1)
    points = np.concatenate([points, points + np.array([*SECOND, 0, 0])])  # never two in a bin
    write_pair(tmp_path, "1", 1, points, 1 + np.arange(128))  # a count tells its molecule
    write_list(tmp_path / "1.csv", [("1", 1)])
    spec = spec_of(sections=sections, stains=stains)  # its panel is c, a
    windows = windows_of(tmp_path, spec, edge=4, batch=8)
    before = (sections - spec.images) // 2  # expression sections before the first image section
    seen, offsets, seconds = set(), set(), set()
    for step in range(6):
        batch = windows(step)
        for image, inside, patches in zip(batch.image, batch.inside, batch.counts, strict=True):
            plane = patches.unflatten(0, (4, 4)).permute(0, 2, 1, 3, 4, 5).flatten(2, 3)
            plane = plane.reshape(8, 8, sections, 2)
            pixels, places = image.unflatten(0, (len(stains), -1)), {}
            for row, column, section, place in plane.nonzero().tolist():
                molecule = int(plane[row, column, section, place]) - 1
                assert points[molecule, 3] == (2, 0)[place]
                box = [slice(BIN * first, BIN * first + BIN) for first in (row, column)]
                assert inside[:, *box].all()
                if 0 <= section - before < spec.images:
                    bright = (pixels[:, section - before, *box] == 1).nonzero().tolist()
                    assert [stain for stain, *_ in bright] == [*range(len(stains))]
                    seen.add(molecule)
                    offsets.update(tuple(pixel) for _, *pixel in bright)
                    places[molecule] = np.add(BIN * np.array([row, column]), bright[0][1:])
            pairs = [(places[k], places[k + 64]) for k in places if k + 64 in places]
            seconds.update(tuple((second - first).tolist()) for first, second in pairs)
    assert len(seen) > 5 and len(offsets) > 5  # any pixel of a tile may be a window's corner
    down, right = SECOND
    both_ways = [{(a, b), (b, -a), (-a, -b), (-b, a)} for a, b in ((down, right), (down, -right))]
    assert seconds == set.union(*both_ways)  # four turns, flipped or not


def test_every_first_section_is_drawn_and_beyond_the_stack_is_nothing(tmp_path):
    y, x = np.arange(SPAN), np.arange(SPAN)
    points = np.stack(np.broadcast_arrays(y[::8, None, None], x[::8, None], np.arange(PLANES)), -1)
    points = np.concatenate([points.reshape(-1, 3), 0 * points.reshape(-1, 3)[:, :1]], 1)
    image = np.arange(2 * PLANES, dtype=np.uint8)[:, None, None].repeat(SPAN, 1).repeat(SPAN, 2)
    write_pair(tmp_path, "1", 1, points, np.ones(len(points)), image=image)
    write_list(tmp_path / "1.csv", [("1", 1)])
    windows = windows_of(tmp_path, spec_of(panel=("a",)), batch=16)
    batch = windows(0)
    starts = set()
    for image, inside, counts in zip(batch.image, batch.inside, batch.counts, strict=True):
        shown = ((image[:, inside[0]][:, 0] + 1) * 127.5).round().int().tolist()
        first = shown[0]
        assert shown == [first, first + 1, PLANES + first, PLANES + first + 1]
        full = counts.sum((0, 1, 2, 4)) > 0
        assert full.tolist() == [0 <= first - 1 + k < PLANES for k in range(4)]
        starts.add(first)
    assert starts == set(range(PLANES - 1))


def test_lists_name_tiles_by_mouse_wherever_they_were_written(data):
    found = listed_tiles([data / "1.csv", data / "2.csv"], data)
    assert {mouse: len(tiles) for mouse, tiles in found.items()} == {"1": 2, "2": 2}
    assert all(tile.genes.is_file() and tile.image.is_file() for t in found.values() for tile in t)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("path\na", r"no column pth"),
        ("pth\nData/gene_1/tile.npz", r"line 2: not the name of a tile"),
        ("pth\n/etc/" + tile_name(1) + ".npz", r"line 2: .*gene_<mouse>/<tile>.npz expected"),
        ("pth\ngene_../" + tile_name(1) + ".npz", r"gene_<mouse>/<tile>.npz expected"),
        ("pth\ngene_1/" + tile_name(7) + ".npz", r"1 of 1 genes missing"),
        ("pth\n\x00", r"line 2: not the name of a tile|cannot be read as a CSV"),
    ],
)
def test_lists_that_lead_nowhere_are_refused(data, tmp_path, text, line):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=line):
        listed_tiles([tmp_path / "list.csv"], data)


def test_a_tile_without_its_image_is_refused(tmp_path):
    write_pair(tmp_path, "1", 1, np.zeros((1, 4), int), np.ones(1))
    (image,) = (tmp_path / "img_1").iterdir()
    image.unlink()
    with pytest.raises(UserError, match=f"{image.name}: 1 of 1 image missing"):
        listed_tiles([write_list(tmp_path / "1.csv", [("1", 1)])], tmp_path)


@pytest.mark.parametrize(
    ("changes", "spec", "line"),
    [
        ({"edge": 6}, {}, "train.window: 6; published tiles allow 2 to 5"),
        ({"genes": 6}, {}, "^expression.genes: 6 on the tiles' last axis, but 7 have names$"),
        ({"names": ("a", "b")}, {}, "gene c of the panel is not on the tiles' axis"),
        ({}, {"stains": ("Nissl",)}, "the tiles have the stains .*not Nissl"),
        ({"tiles": []}, {}, "no tiles left"),
    ],
)
def test_windows_that_do_not_fit_are_refused(data, changes, spec, line):
    with pytest.raises(UserError, match=line):
        windows_of(data, spec_of(**spec), **changes)


def bad_shape(path):
    write_image(path, np.zeros((2 * PLANES, 256, 256), np.uint8))


def bad_type(path):
    write_image(path, np.zeros((2 * PLANES, SPAN, SPAN), np.int16))


def pickled(path):
    """An array that asks its reader to unpickle its chunks."""
    write_image(path, np.zeros((2 * PLANES, SPAN, SPAN), np.uint8))
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    facts = json.loads(files[".zarray"])
    files[".zarray"] = json.dumps(facts | {"filters": [{"id": "pickle", "protocol": 5}]}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def bomb(path):
    """An array whose description unpacks to more than half a gigabyte."""
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open(".zarray", "w", force_zip64=True) as member:
        for _ in range(33):
            member.write(bytes(1 << 24))


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (bad_shape, r"shape \[12, 256, 256\], type \|u1.*should be \[12, 512, 512\]"),
        (bad_type, r"type <i2"),
        (pickled, r"filters \[\{'id': 'pickle'"),
        (lambda path: path.write_bytes(b"PK"), "not a zip archive"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "not a zipped Zarr v2 array"),
        (bomb, r"\.zarray unpacks to more than 536870912 bytes"),
    ],
    ids=["shape", "type", "pickle", "no zip", "empty zip", "bomb"],
)
def test_images_of_another_kind_are_refused(tmp_path, spoil, line):
    write_pair(tmp_path, "1", 1, np.zeros((1, 4), int), np.ones(1))
    spoil(Path(tmp_path / "img_1" / f"{tile_name(1)}.zip"))
    write_list(tmp_path / "1.csv", [("1", 1)])
    with pytest.raises(UserError, match=line):
        windows_of(tmp_path, spec_of())(0)
