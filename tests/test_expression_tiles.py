"""Published expression tiles: overlaps are read once, faulty tiles are refused."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from teramind.errors import UserError
from teramind.expression.bin_expression import bin_expression
from teramind.expression.raster import Raster
from teramind.expression.tile_file import TileFile
from teramind.expression.tiles import TileSettings, _owner, import_tiles
from teramind.geometry import BIN, Rect

PANEL = tuple("abcdef")


def name(row, column):
    y, x = 256 * row, 256 * column
    return f"{y}_{y + 256}_{x}_{x + 256}_{y - 128}_{y + 384}_{x - 128}_{x + 384}.npz"


def write_tile(folder, row, column, **changes):
    """A tile of 2 sections x 3 genes with one molecule at its first own pixel."""
    members = {
        "coords": np.array([[128], [128], [5]]),
        "data": np.array([1], np.uint16),
        "shape": np.array([512, 512, 6]),
        "fill_value": np.array(0),
    }
    members |= changes
    np.savez(folder / name(row, column), **{k: v for k, v in members.items() if v is not None})
    return folder


@pytest.mark.parametrize("known", [{"genes": 500}, {"sections": 4}])
def test_golden_tiles_give_the_histogram_of_all_molecules(shared, tmp_path, known):
    summary = import_tiles(shared("goldens/chain_genes"), tmp_path / "r", panel=PANEL, **known)
    raster = Raster.open(tmp_path / "r")
    assert raster.extent == Rect(128, 384, 768, 1024) == Rect(*summary["extent"])
    chain = load_file(shared("goldens/z4_all_64_chain.safetensors"))
    y, x, section, gene = (
        chain[f"transcripts_{key}"].astype(int) for key in ("y", "x", "section", "gene")
    )
    expected = np.zeros((48, 64, 4, 6), int)
    row, column = (y - 128) // BIN, (x - 384) // BIN
    inside = (row >= 0) & (row < 48) & (column >= 0) & (column < 64)
    np.add.at(expected, (row[inside], column[inside], section[inside], gene[inside]), 1)
    counts = raster.counts(sections=range(4), rect=raster.extent)
    np.testing.assert_array_equal(counts, expected)
    assert summary["molecules"] == inside.sum()


def test_golden_tiles_bin_like_any_other_source(shared, tmp_path):
    tiles = shared("goldens/chain_genes")
    import_tiles(tiles, tmp_path / "a", panel=PANEL, genes=500)
    bin_expression(
        source=tiles,
        raster_path=tmp_path / "b",
        panel=PANEL,
        sections=4,
        extent=None,
        panel_table_path=tmp_path / "panel.tsv",
        settings=TileSettings(genes=500),
    )
    a, b = (Raster.open(tmp_path / letter) for letter in "ab")
    dense = [raster.counts(sections=range(4), rect=a.extent) for raster in (a, b)]
    np.testing.assert_array_equal(*dense)
    listed = pd.read_csv(tmp_path / "panel.tsv", sep="\t")
    assert listed.molecules.tolist() == dense[0].sum(axis=(0, 1, 2), dtype=int).tolist()


@settings(max_examples=40)
@given(st.sets(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1, max_size=8))
def test_every_framed_pixel_comes_from_the_one_tile_it_lies_in_or_else_a_neighbour(tiles):
    places = dict.fromkeys(tiles, Path())
    for i in range(-8, 9):
        for j in range(-8, 9):
            framed = {(r, c) for r, c in tiles if -1 <= i - 2 * r <= 2 and -1 <= j - 2 * c <= 2}
            owner = _owner((i, j), places)
            assert (owner in framed) if framed else (owner is None)
            if (i // 2, j // 2) in tiles:
                assert owner == (i // 2, j // 2)


def test_counts_are_taken_from_the_last_axis_section_by_section(tmp_path):
    coords = np.array([[128, 130], [129, 511], [5, 1]])
    write_tile(tmp_path, 1, 2, coords=coords, data=np.array([7, 300], np.uint16))
    summary = import_tiles(tmp_path, tmp_path / "r", genes=3)
    raster = Raster.open(tmp_path / "r")
    assert raster.panel == ("gene_0", "gene_1", "gene_2")
    assert summary["sections"] == raster.sections == 2
    dense = raster.counts(sections=[0, 1], rect=Rect(128, 384, 512, 512))
    assert {tuple(place): dense[tuple(place)] for place in np.argwhere(dense)} == {
        (8, 8, 1, 2): 7,
        (8, 31, 0, 1): 300,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coords": np.array([[512], [0], [0]])}, "beyond the shape"),
        ({"coords": np.array([[0], [-1], [0]])}, "beyond the shape"),
        ({"coords": np.array([[0.5], [0], [0]])}, "integers"),
        ({"coords": np.zeros((3, 2), int)}, r"shape \(3, 2\) for data"),
        ({"data": np.array([-1])}, r"count \[-1\]: whole counts of at least 0"),
        ({"data": np.array([0.5])}, r"count \[0.5\]: whole counts"),
        ({"data": np.array([np.nan])}, r"count \[nan\]: whole counts"),
        ({"data": np.array([1 << 33])}, "whole counts"),
        ({"data": np.array(["1"])}, "data of type <U1: whole counts"),
        ({"data": np.array([{}], object)}, "plain arrays"),
        ({"data": None}, "plain arrays"),
        ({"shape": np.array([256, 256, 6])}, r"shape \[256, 256, 6\]"),
        ({"shape": np.array([512, 512, 7])}, "last axis of 7"),
        ({"fill_value": np.array(1)}, "fill_value"),
    ],
)
def test_faulty_tiles_are_refused_and_leave_no_raster(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        import_tiles(write_tile(tmp_path, 1, 1, **changes), tmp_path / "r", genes=3)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_tiles_that_disagree_in_shape_are_refused(tmp_path):
    write_tile(tmp_path, 1, 1)
    write_tile(tmp_path, 1, 2, shape=np.array([512, 512, 9]))
    with pytest.raises(UserError, match=r"512_768_128.*shape \[512, 512, 9\]"):
        import_tiles(tmp_path, tmp_path / "r", genes=3)


@pytest.mark.parametrize(
    "wrong",
    [
        "0_256_0_256_-128_384_-128_385.npz",
        "0_128_0_256_-128_256_-128_384.npz",
        "16_272_0_256_-112_400_-128_384.npz",
        "tile.npz",
    ],
)
def test_contradictory_names_are_refused(tmp_path, wrong):
    write_tile(tmp_path, 1, 1).joinpath(name(1, 1)).rename(tmp_path / wrong)
    with pytest.raises(UserError, match="not the name of a tile"):
        import_tiles(tmp_path, tmp_path / "r", genes=3)


@pytest.mark.parametrize("keep", [0, 300])
def test_a_truncated_tile_is_refused(tmp_path, keep):
    write_tile(tmp_path, 1, 1)
    file = tmp_path / name(1, 1)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="plain arrays"):
        import_tiles(tmp_path, tmp_path / "r", genes=3)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({}, "0 sections x 500 genes"),
        ({"genes": 4}, "1 sections x 4 genes"),
        ({"genes": 2, "sections": 2}, "6 is not"),
    ],
)
def test_sections_and_genes_must_make_the_last_axis(tmp_path, known, message):
    with pytest.raises(UserError, match=message):
        import_tiles(write_tile(tmp_path, 1, 1), tmp_path / "r", **known)


def test_molecules_beyond_the_panel_are_refused(tmp_path):
    with pytest.raises(UserError, match="gene 2 with a panel of 2 genes"):
        import_tiles(write_tile(tmp_path, 1, 1), tmp_path / "r", panel=("a", "b"), genes=3)


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="no such folder or zip"):
        import_tiles(tmp_path / "absent", tmp_path / "r", genes=3)
    with pytest.raises(UserError, match="no expression tiles"):
        import_tiles(tmp_path, tmp_path / "r", genes=3)


def test_an_array_in_place_of_an_archive_is_refused(tmp_path):
    with (tmp_path / name(1, 1)).open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(UserError, match="plain arrays"):
        import_tiles(tmp_path, tmp_path / "r", genes=3)


def test_without_sections_genes_or_panel_there_are_500_genes_as_published(tmp_path, shared):
    summary = import_tiles(shared("goldens/chain_genes"), tmp_path / "raster.zarr")
    assert (summary["sections"], summary["genes"]) == (4, 500)
    raster = Raster.open(tmp_path / "raster.zarr")
    assert raster.bounds == Rect(256, 512, 512, 768)
    assert raster.extent == Rect(128, 384, 768, 1024)


def scatter(tiles, molecules=600, sections=2, genes=3):
    """Molecules (y, x, channel, count) anywhere under the frames of tiles."""
    random = np.random.default_rng(5)
    rows, columns = zip(*tiles, strict=True)
    y = random.integers(256 * min(rows) - 128, 256 * max(rows) + 384, molecules)
    x = random.integers(256 * min(columns) - 128, 256 * max(columns) + 384, molecules)
    channel = random.integers(0, sections * genes, molecules)
    return y, x, channel, random.integers(1, 5, molecules)


def cut_tiles(folder, tiles, found):
    """Tiles that hold the same molecules wherever they overlap."""
    folder.mkdir(exist_ok=True)
    for row, column in tiles:
        y, x, channel, count = found
        top, left = 256 * row - 128, 256 * column - 128
        framed = (y >= top) & (y < top + 512) & (x >= left) & (x < left + 512)
        coords = np.stack([y - top, x - left, channel])[:, framed]
        write_tile(folder, row, column, coords=coords, data=count[framed].astype(np.uint16))
    return folder


def zipped(folder, inside="gene_1/"):
    """A zip of the folder's tiles, with what archives tend to hold besides."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{inside}README.txt", "tiles")
        for file in folder.iterdir():
            archive.write(file, inside + file.name)
            archive.writestr(f"__MACOSX/{inside}._{file.name}", b"twin")
    return path


def dense(path):
    raster = Raster.open(path)
    return raster.extent, raster.counts(sections=range(raster.sections), rect=raster.extent)


GRID = [(row, column) for row in (1, 2, 3) for column in (0, 1, 2)]


def test_a_zip_is_read_in_place_like_its_folder(tmp_path):
    folder = cut_tiles(tmp_path / "tiles", GRID, scatter(GRID))
    for name, source in (("a", folder), ("b", zipped(folder))):
        import_tiles(source, tmp_path / name, genes=3)
    (extent, a), (same, b) = dense(tmp_path / "a"), dense(tmp_path / "b")
    assert extent == same
    np.testing.assert_array_equal(a, b)
    assert a.sum() == scatter(GRID)[3].sum()
    assert {p.name for p in tmp_path.iterdir()} == {"tiles", "tiles.zip", "a", "b"}


def bin_tiles(source, raster, *, panel=PANEL[:3], settings=TileSettings(genes=3), **options):  # noqa: B008
    return bin_expression(
        source=source,
        raster_path=raster,
        panel=panel,
        sections=2,
        extent=None,
        panel_table_path=raster.with_suffix(".tsv"),
        settings=settings,
        **options,
    )


@settings(max_examples=6)
@given(
    region=st.builds(
        lambda y, x, h, w: Rect(16 * y, 16 * x, 16 * h, 16 * w),
        *(st.integers(16, 60), st.integers(0, 44), st.integers(1, 4), st.integers(1, 4)),
    ),
    missing=st.sets(st.sampled_from(GRID), max_size=2),
)
def test_around_a_region_the_counts_are_those_of_all_tiles(tmp_path_factory, region, missing):
    tmp_path = tmp_path_factory.mktemp("around")
    tiles = [tile for tile in GRID if tile not in missing]
    folder = cut_tiles(tmp_path / "tiles", tiles, scatter(GRID))
    around = region.grown(64)
    whole = bin_tiles(folder, tmp_path / "whole")
    part = bin_tiles(folder, tmp_path / "part", around=around)
    a, b = (Raster.open(tmp_path / name) for name in ("whole", "part"))
    np.testing.assert_array_equal(
        *(raster.counts(sections=range(2), rect=around) for raster in (a, b))
    )
    assert part["tiles"] <= whole["tiles"] == len(tiles)


def test_a_region_beyond_the_tiles_is_refused_with_their_extent(tmp_path):
    folder = cut_tiles(tmp_path / "tiles", GRID, scatter(GRID))
    for region, where in ((Rect(0, 0, 512, 64), "partly outside"), (Rect(0, 0, 64, 64), "outside")):
        with pytest.raises(UserError, match=f"{where} the data .*cover y 256..1023, x 0..767 pix"):
            bin_tiles(folder, tmp_path / "r", region=region, around=region)
    assert not (tmp_path / "r").exists()


ROW = Rect(256, 0, 256, 1280)  # tiles (1, 0) to (1, 4)


def test_a_hole_in_the_tiles_under_a_region_is_refused_with_the_first_that_is_missing(tmp_path):
    for column in (0, 4):
        write_tile(tmp_path, 1, column)
    for around in (ROW, Rect(256, 512, 256, 256)):
        with pytest.raises(UserError, match=r": 3 of the tiles .* is that of y 256..511, x 256..5"):
            bin_tiles(tmp_path, tmp_path / "r", region=ROW, around=ROW)
        with pytest.raises(UserError, match=r": 1 of the tiles .*, the first is .*, x 512..76"):
            bin_tiles(tmp_path, tmp_path / "r", region=Rect(256, 600, 16, 16), around=around)
    assert not (tmp_path / "r").exists()


def test_a_missing_tile_that_its_neighbours_frames_cover_is_no_hole(tmp_path):
    for column in (0, 2, 4):
        write_tile(tmp_path, 1, column)
    assert bin_tiles(tmp_path, tmp_path / "r", region=ROW, around=ROW)["tiles"] == 3


def test_genes_of_the_tiles_are_found_by_name(tmp_path):
    coords = np.array([[128, 129], [128, 128], [1, 3]])  # section 0 gene b, section 1 gene a
    write_tile(tmp_path, 1, 1, coords=coords, data=np.array([4, 9]))
    named = TileSettings(genes=3, names=("a", "b", "c"))
    bin_tiles(tmp_path, tmp_path / "r", settings=named, panel=("c", "b"))
    _, counts = dense(tmp_path / "r")
    assert counts.sum() == 4
    assert counts[8, 8, 0].tolist() == [0, 4]


def test_a_misnamed_tile_contradicts_its_neighbours(tmp_path):
    folder = cut_tiles(tmp_path, GRID, scatter(GRID))
    first, second = folder / name(2, 1), folder / name(3, 2)
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)
    with pytest.raises(UserError, match=r"other molecules than .*at the same pixels: one of the"):
        import_tiles(folder, tmp_path / "r", genes=3)
    assert not (tmp_path / "r").exists()


def test_a_few_molecules_that_differ_in_a_frame_are_counted_and_said(tmp_path, capsys):
    folder = cut_tiles(tmp_path / "tiles", GRID, scatter(GRID))
    with np.load(folder / name(2, 1)) as archive:
        members = dict(archive)
    near_corner = (members["coords"][:2] < 128).all(0)
    members["data"] = members["data"] + near_corner.astype(np.uint16)
    np.savez(folder / name(2, 1), **members)
    assert near_corner.any()
    assert bin_tiles(folder, tmp_path / "r")["differing_quarter_tiles"] == 1
    assert "tiles: overlapping tiles differ on 1 quarter tiles;" in capsys.readouterr().err


def test_a_tile_that_is_there_twice_is_refused(tmp_path):
    folder = write_tile(tmp_path, 1, 1)
    path = tmp_path / "twice.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for inside in ("a", "b"):
            archive.write(folder / name(1, 1), f"{inside}/{name(1, 1)}")
    with pytest.raises(UserError, match=r"b/256_512.*: the same tile as .*a/256_512"):
        import_tiles(path, tmp_path / "r", genes=3)


@pytest.mark.parametrize("content", [b"", b"no zip at all", None], ids=["empty", "text", "cut off"])
def test_a_zip_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "tiles.zip"
    if content is None:
        content = zipped(write_tile(tmp_path, 1, 1)).read_bytes()[:-30]
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"tiles\.zip: not a zip archive, or cut off"):
        import_tiles(path, tmp_path / "r", genes=3)


def bomb():
    """A tile of a few KB whose counts unpack to half a gigabyte and more."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("data.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(
                member, {"descr": "|u1", "fortran_order": False, "shape": (1 << 29,)}
            )
            for _ in range(1 << 5):
                member.write(bytes(1 << 24))
        for other in ("coords", "shape", "fill_value"):
            with archive.open(f"{other}.npy", "w") as member:
                np.save(member, np.zeros(3, int))
    return content.getvalue()


def boast():
    """A tile whose header names more numbers than follow."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for member in ("coords", "data", "shape", "fill_value"):
            with archive.open(f"{member}.npy", "w") as stream:
                np.lib.format.write_array_header_1_0(
                    stream, {"descr": "<i8", "fortran_order": False, "shape": (1 << 40,)}
                )
    return content.getvalue()


@pytest.mark.parametrize(
    ("tile", "fault"), [(bomb, "bytes, 536870912 at most"), (boast, "holds 0 bytes, not")]
)
def test_a_tile_that_unpacks_to_too_much_is_refused_before_it_does(tmp_path, tile, fault):
    content = tile()
    (tmp_path / name(1, 1)).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "tiles.zip", "w") as archive:
        archive.writestr(name(1, 1), content)
    for source in (tmp_path, tmp_path / "tiles.zip"):
        with pytest.raises(UserError, match=fault):
            import_tiles(source, tmp_path / "r", genes=3)


def test_a_damaged_tile_in_a_zip_is_named(tmp_path):
    path = zipped(write_tile(tmp_path, 1, 1))
    content = bytearray(path.read_bytes())
    middle = content.find(name(1, 1).encode()) + 200
    content[middle] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"gene_1/{name(1, 1)}: not a sparse COO tile"):
        import_tiles(path, tmp_path / "r", genes=3)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': ((((",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (30000000,)}",
        "-" * 9000,
    ],
    ids=["brackets", "values of no size", "minus signs"],
)
def test_a_header_made_to_break_its_reader_is_one_line(tmp_path, header):
    path = tmp_path / "256_512_256_512_128_640_128_640.npz"
    content = header.encode() + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        magic = b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little")
        archive.writestr("coords.npy", magic + content)
    with pytest.raises(UserError, match="not a sparse COO tile of plain arrays") as raised:
        TileFile(path).arrays()
    assert len(str(raised.value).splitlines()) == 1
