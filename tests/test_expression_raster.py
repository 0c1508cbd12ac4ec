"""The expression raster holds exactly the molecules it was given."""

import errno
import json
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from teramind.errors import UserError
from teramind.expression.raster import Raster
from teramind.expression.raster_format import BLOCK
from teramind.expression.raster_writer import RasterWriter
from teramind.expression.spill import RECORD, Spill, sum_records
from teramind.files import remove_leftovers
from teramind.geometry import BIN, Rect

PANEL = ("Gad1", "Slc17a7", "Th")
EXTENT = Rect(-32, 64, 1500, 2300)
ENTRY = st.tuples(
    st.integers(0, 1),
    st.integers(EXTENT.y, EXTENT.bottom - 1),
    st.integers(EXTENT.x, EXTENT.right - 1),
    st.integers(0, 2),
    st.integers(0, 300),
)
BINS = st.tuples(st.integers(-6, 100), st.integers(0, 160), st.integers(0, 90), st.integers(0, 90))


def write(path, entries, *, extent=EXTENT, pieces=1, **settings):
    writer = RasterWriter(path, panel=PANEL, sections=2, extent=extent, **settings)
    table = np.array(entries, np.int64).reshape(-1, 5)
    with writer:
        for section, y, x, gene, count in (piece.T for piece in np.array_split(table, pieces)):
            writer.add(section=section, y=y, x=x, gene=gene, count=count)
    return writer


def histogram(entries, sections, rect):
    dense = np.zeros((rect.height // BIN, rect.width // BIN, len(sections), len(PANEL)), int)
    for section, y, x, gene, count in entries:
        row, column = (y - rect.y) // BIN, (x - rect.x) // BIN
        if 0 <= row < dense.shape[0] and 0 <= column < dense.shape[1]:
            for place in np.flatnonzero(np.array(sections) == section):
                dense[row, column, place, gene] += count
    return dense


@settings(max_examples=25)
@given(entries=st.lists(ENTRY, max_size=40), bins=BINS, pieces=st.integers(1, 4))
def test_any_window_is_the_histogram_of_its_molecules(entries, bins, pieces):
    rect, sections = Rect(*(BIN * edge for edge in bins)), [1, -1, 0, 2]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "r", entries, pieces=pieces)
        raster = Raster.open(Path(folder) / "r")
        expected = histogram(entries, sections, rect)
        counts = raster.counts(sections=sections, rect=rect)
        np.testing.assert_array_equal(counts, expected)
        assert counts.dtype == np.min_scalar_type(int(expected.max(initial=0)))
        for place, section in enumerate(sections):
            total = raster.totals(section=section, rect=rect)
            assert total.dtype == np.int64
            np.testing.assert_array_equal(total, expected[:, :, place].sum(axis=-1))
        sums = [sum(e[4] for e in entries if e[0] == section) for section in (0, 1)]
        assert list(raster.molecules_per_section) == sums


def test_entries_are_sorted_and_unique_within_each_block(tmp_path):
    random = np.random.default_rng(1)
    high = [2, EXTENT.bottom, EXTENT.x + 40, 3, 3]
    write(tmp_path / "r", random.integers([0, EXTENT.y, EXTENT.x, 0, 1], high, (3000, 5)))
    group = zarr.open_group(tmp_path / "r", mode="r")
    for section in ("section_000", "section_001"):
        pointer, bins, gene = (group[section][n][:] for n in ("block_pointer", "bin", "gene"))
        assert pointer[0] == 0
        assert pointer[-1] == len(bins) == len(gene)
        for start, stop in pairwise(pointer):
            key = bins[start:stop].astype(int) * len(PANEL) + gene[start:stop]
            assert (np.diff(key) > 0).all()


def test_each_section_stores_counts_in_the_smallest_type(tmp_path):
    write(tmp_path / "r", [(0, 0, 100, 0, 255), (1, 0, 100, 0, 200), (1, 1, 101, 0, 100)])
    group = zarr.open_group(tmp_path / "r", mode="r")
    types = [group[name]["count"].dtype for name in ("section_000", "section_001")]
    assert types == [np.uint8, np.uint16]


def test_attributes_survive_the_disk(tmp_path):
    source = tmp_path / "molecules.csv"
    source.write_text("12345")
    write(
        tmp_path / "r",
        [(0, 0, 100, 0, 7)],
        pixel_size_um=0.5,
        section_spacing_um=10.0,
        sources=[source],
    )
    raster = Raster.open(tmp_path / "r")
    assert raster.panel == PANEL
    assert (raster.pixel_size_um, raster.section_spacing_um, raster.sections) == (0.5, 10.0, 2)
    assert raster.sources == [{"name": "molecules.csv", "bytes": 5}]


def test_extent_is_rounded_outwards_to_bins(tmp_path):
    writer = write(tmp_path / "r", [], extent=Rect(-1, 17, 18, 15))
    assert Raster.open(tmp_path / "r").extent == writer.extent == Rect(-16, 16, 48, 16)


def test_molecules_outside_the_extent_are_skipped_and_counted(tmp_path):
    inside = [(0, EXTENT.y, EXTENT.x, 0, 2)]
    beyond = [(0, EXTENT.y - 1, EXTENT.x, 0, 3), (1, EXTENT.y, 1 << 40, 0, 4)]
    writer = write(tmp_path / "r", inside + beyond)
    assert writer.outside.sum() == 7
    assert sum(Raster.open(tmp_path / "r").molecules_per_section) == 2


def test_an_exception_leaves_nothing_behind(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        RasterWriter(tmp_path / "r", panel=PANEL, sections=1, extent=EXTENT),
    ):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_success_leaves_the_raster_alone(tmp_path):
    write(tmp_path / "r", [(0, 0, 100, 0, 7)])
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize("wrong", [{"gene": 3}, {"gene": -1}, {"section": 2}, {"count": -1}])
def test_impossible_entries_are_refused(tmp_path, wrong):
    entry = {"section": 0, "y": 0, "x": 100, "gene": 0, "count": 1} | wrong
    writer = RasterWriter(tmp_path / "r", panel=PANEL, sections=2, extent=EXTENT)
    with pytest.raises(ValueError, match=next(iter(wrong))), writer:
        writer.add(**{name: np.array([value]) for name, value in entry.items()})


def test_an_existing_target_is_never_overwritten(tmp_path):
    with pytest.raises(UserError, match="exists"):
        RasterWriter(tmp_path, panel=PANEL, sections=1, extent=EXTENT)


@pytest.mark.parametrize("shift", [(1, 0, 0, 0), (0, 8, 0, 0), (0, 0, 1, 0), (0, 0, 0, 15)])
def test_windows_off_the_bin_edges_are_refused(tmp_path, shift):
    write(tmp_path / "r", [])
    rect = Rect(*(64 + step for step in shift))
    with pytest.raises(ValueError, match="multiples of 16"):
        Raster.open(tmp_path / "r").counts(sections=[0], rect=rect)


def test_the_cache_changes_nothing_and_stays_bounded(tmp_path):
    random = np.random.default_rng(2)
    extent = Rect(0, 0, 3 * BLOCK * BIN, 3 * BLOCK * BIN)
    entries = random.integers(0, [2, extent.height, extent.width, 3, 9], (4000, 5))
    write(tmp_path / "r", entries, extent=extent)
    small, large = (Raster.open(tmp_path / "r", cache_bytes=size) for size in (2000, 1 << 20))
    for y, x in random.integers(0, 170, (20, 2)) * BIN:
        rect = Rect(int(y), int(x), 30 * BIN, 20 * BIN)
        windows = [raster.counts(sections=[0, 1], rect=rect) for raster in (small, large)]
        np.testing.assert_array_equal(*windows)
        assert small._cached_bytes == sum(b.nbytes for b in small._cache.values()) <= 2000


def test_what_was_read_is_kept_in_memory(tmp_path):
    random = np.random.default_rng(2)
    extent = Rect(0, 0, 2 * BLOCK * BIN, 2 * BLOCK * BIN)
    entries = random.integers([0, 0, 0, 0, 1], [2, extent.height, extent.width, 3, 9], (1000, 5))
    write(tmp_path / "r", entries, extent=extent)
    raster = Raster.open(tmp_path / "r")
    first = raster.counts(sections=[0, 1], rect=extent)
    assert first.sum() == entries[:, 4].sum()
    for name in ("bin", "gene", "count"):
        for chunks in (tmp_path / "r").glob(f"section_*/{name}/c"):
            shutil.rmtree(chunks)
    np.testing.assert_array_equal(raster.counts(sections=[0, 1], rect=extent), first)
    with pytest.raises(UserError, match="chunks lost"):
        Raster.open(tmp_path / "r").counts(sections=[0, 1], rect=extent)


def test_a_window_is_read_without_the_chunks_of_other_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("teramind.expression.raster_writer._CHUNK", 10)
    extent = Rect(0, 0, BLOCK * BIN, 4 * BLOCK * BIN)
    places = [
        (0, bin_ * BIN, block * BLOCK * BIN, 0, 1) for block in range(4) for bin_ in range(10)
    ]
    write(tmp_path / "r", places, extent=extent)
    for chunk in ("0", "2", "3"):
        for name in ("bin", "gene", "count"):
            (tmp_path / "r/section_000" / name / "c" / chunk).unlink()
    rect = Rect(0, BLOCK * BIN, BLOCK * BIN, BLOCK * BIN)
    assert Raster.open(tmp_path / "r").totals(section=0, rect=rect).sum() == 10


@pytest.mark.parametrize("name", ["bin", "gene", "count"])
def test_a_lost_chunk_is_an_error_and_not_an_empty_brain(tmp_path, name):
    write(tmp_path / "r", [(0, 0, 100, 0, 7)])
    shutil.rmtree(tmp_path / "r/section_000" / name / "c")
    with pytest.raises(UserError, match="lost"):
        Raster.open(tmp_path / "r").totals(section=0, rect=Rect(0, 0, 160, 160))


@pytest.mark.parametrize(("content", "fault"), [(None, "chunks lost"), (b"no chunk", "damaged")])
def test_where_a_section_is_occupied_is_not_told_from_faulty_chunks(tmp_path, content, fault):
    write(tmp_path / "r", [(0, 0, 100, 0, 7)])
    (chunk,) = (tmp_path / "r/section_000/bin/c").iterdir()
    chunk.write_bytes(content) if content else chunk.unlink()
    with pytest.raises(UserError, match=f"section_000: {fault}"):
        Raster.open(tmp_path / "r").occupied(section=0, rect=Rect(0, 0, 160, 160), edge=BIN)


def test_a_lost_array_is_an_error(tmp_path):
    write(tmp_path / "r", [(0, 0, 100, 0, 7)])
    shutil.rmtree(tmp_path / "r/section_001/gene")
    with pytest.raises(UserError, match=r"section_001/gene.*half-written"):
        Raster.open(tmp_path / "r")


def test_missing_foreign_and_newer_rasters_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such"):
        Raster.open(tmp_path / "r")
    (tmp_path / "text").write_text("x")
    with pytest.raises(UserError, match="not an expression raster"):
        Raster.open(tmp_path / "text")
    zarr.open_group(tmp_path / "foreign", mode="w", zarr_format=3)
    with pytest.raises(UserError, match="attributes missing"):
        Raster.open(tmp_path / "foreign")
    write(tmp_path / "newer", [])
    metadata = tmp_path / "newer/zarr.json"
    content = json.loads(metadata.read_text())
    content["attributes"]["version"] += 1
    metadata.write_text(json.dumps(content))
    with pytest.raises(UserError, match="version"):
        Raster.open(tmp_path / "newer")


@settings(max_examples=25)
@given(
    keys=st.lists(st.integers(0, 12), max_size=60), batch=st.integers(1, 9), files=st.integers(1, 3)
)
def test_a_spill_sums_the_same_whatever_its_batch(keys, batch, files):
    key = np.array(keys, np.uint64)
    with tempfile.TemporaryDirectory() as folder:
        spill = Spill(Path(folder), batch=batch)
        for part in np.array_split(key, 5):
            spill.add(file=part.astype(np.int64) % files, key=part, count=part.astype(int) + 1)
        spill.flush()
        for file in range(files):
            mine = [k for k in keys if k % files == file]
            summed = spill.condense(file)
            assert summed["key"].tolist() == sorted(set(mine))
            assert summed["count"].tolist() == [mine.count(k) * (k + 1) for k in sorted(set(mine))]
            np.testing.assert_array_equal(spill.read(file), summed)


def test_a_sum_beyond_32_bits_is_refused():
    records = np.array([(5, 2**32 - 1), (5, 1)], RECORD)
    with pytest.raises(UserError, match=f"^{2**32} molecules of one gene in one bin"):
        sum_records(records)


def test_a_full_disk_is_an_error_that_says_so(tmp_path):
    spill = Spill(tmp_path)
    (tmp_path / "0.records").symlink_to("/dev/full")
    spill.add(file=np.zeros(9, int), key=np.arange(9, dtype=np.uint64), count=np.ones(9, int))
    with pytest.raises(OSError) as raised:
        spill.flush()
    assert raised.value.errno == errno.ENOSPC


def test_what_a_killed_writer_leaves_is_known_as_a_leftover(tmp_path):
    writer = RasterWriter(tmp_path / "raster.zarr", panel=["Th"], sections=1, extent=EXTENT)
    writer.__enter__()  # and never ends
    (left,) = tmp_path.iterdir()
    assert remove_leftovers(tmp_path) == [left]
