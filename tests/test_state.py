"""State files: whole or absent, exact, and never mistaken for another or read when damaged."""

import resource
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teramind.errors import UserError
from teramind.geometry import Rect
from teramind.state import SavedStates, load_parts, load_state, parts_of, save_state

IDENTITY = {"slab": "w00_r01_c02", "phase": "1", "run": "3f2a"}
RECT = Rect(32, 64, 4, 6)


def random_state(rect=RECT, dtype=np.float32):
    """Two channels of noise with a background patch."""
    shape = (2, rect.height, rect.width)
    state = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    state[:, :2, :3] = np.nan
    return state


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The bytes of a state file."""
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    save_state(path, random_state(), rect=RECT, identity=IDENTITY)
    return path.read_bytes()


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """Where damaged copies are put."""
    return tmp_path_factory.mktemp("damaged") / "state.safetensors"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_state_comes_back_bit_by_bit_in_the_stored_type(tmp_path, dtype):
    state = random_state()
    save_state(tmp_path / "s.safetensors", state, rect=RECT, identity=IDENTITY, dtype=dtype)
    rect, found = load_state(tmp_path / "s.safetensors", identity=IDENTITY)
    assert rect == RECT
    assert found.dtype == np.float32
    assert found.tobytes() == state.astype(dtype).astype(np.float32).tobytes()


@contextmanager
def no_room():
    """No file can grow beyond 100 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_without_room_on_the_disk_no_file_is_left(tmp_path):
    with pytest.raises(OSError, match="File too large"), no_room():
        save_state(tmp_path / "s.safetensors", random_state(), rect=RECT, identity=IDENTITY)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_state_before(tmp_path):
    path = tmp_path / "s.safetensors"
    save_state(path, random_state(), rect=RECT, identity=IDENTITY)
    before = path.read_bytes()
    with pytest.raises(OSError, match="File too large"), no_room():
        save_state(path, 0 * random_state(), rect=RECT, identity=IDENTITY)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_no_changed_byte_passes_unnoticed(content, damaged, data):
    place = data.draw(st.integers(0, len(content) - 1))
    flips = data.draw(st.integers(1, 255))
    changed = bytearray(content)
    changed[place] ^= flips
    damaged.write_bytes(changed)
    try:
        rect, found = load_state(damaged, identity=IDENTITY)
    except UserError as error:
        assert str(error).startswith(f"state {damaged}: ")
        assert "\n" not in str(error)
    else:  # white space of the header
        assert rect == RECT
        assert found.tobytes() == random_state().tobytes()


def test_no_changed_byte_of_the_voxels_passes(content, damaged):
    for place in range(len(content) - random_state().nbytes, len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        damaged.write_bytes(changed)
        with pytest.raises(UserError, match="damaged"):
            load_state(damaged, identity=IDENTITY)


def test_a_truncated_file_is_damaged(content, damaged):
    for length in range(len(content)):
        damaged.write_bytes(content[:length])
        with pytest.raises(UserError, match="damaged"):
            load_state(damaged, identity=IDENTITY)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"state .*absent\.safetensors"):
        load_state(tmp_path / "absent.safetensors", identity=IDENTITY)


@pytest.mark.parametrize(
    ("key", "other"), [("slab", "w00_r01_c03"), ("phase", "0"), ("run", "77aa")]
)
def test_the_state_of_another_slab_phase_or_run_is_refused(content, damaged, key, other):
    damaged.write_bytes(content)
    with pytest.raises(UserError, match=f"belongs to {key} {IDENTITY[key]}, not {other}"):
        load_state(damaged, identity={**IDENTITY, key: other})


def test_neighbouring_states_read_as_one_plane():
    plane = np.random.default_rng(0).standard_normal((2, 10, 10)).astype(np.float32)
    parts = [Rect(100, 50, 6, 4), Rect(100, 54, 6, 6), Rect(106, 50, 4, 4)]
    whole = Rect(100, 50, 10, 10)
    read = SavedStates([(part, plane[:, *part.within(whole)]) for part in parts])
    plane[:, 6:, 4:] = np.nan
    np.testing.assert_array_equal(read(whole), plane)
    np.testing.assert_array_equal(read(Rect(104, 52, 4, 5)), plane[:, 4:8, 2:7])
    assert np.isnan(read(Rect(96, 50, 4, 10))).all()


@settings(max_examples=100, deadline=None)
@given(st.builds(Rect, *[st.integers(0, 9)] * 2, *[st.integers(1, 9)] * 2), st.integers(0, 12))
def test_parts_cover_a_state_once_and_end_at_the_margin(rect, margin):
    times = np.zeros((rect.height, rect.width), int)
    for part in parts_of(rect, margin):
        times[part.within(rect)] += 1
        for edge, length in ((part.y - rect.y, rect.height), (part.x - rect.x, rect.width)):
            assert edge in {0, margin, length - margin}
    assert (times == 1).all()


def test_a_neighbour_reads_only_the_parts_that_it_needs(tmp_path):
    rect, path = Rect(32, 64, 40, 60), tmp_path / "s.safetensors"
    state = random_state(rect)
    save_state(path, state, rect=rect, identity=IDENTITY, margin=8)
    corner = Rect(24, 56, 16, 16)
    ((place, found),) = load_parts(path, identity=IDENTITY, near=corner)
    assert place == Rect(32, 64, 8, 8)
    np.testing.assert_array_equal(found, state[:, :8, :8])
    whole, joined = load_state(path, identity=IDENTITY)
    assert whole == rect
    assert joined.tobytes() == state.tobytes()


def test_no_changed_byte_of_a_part_that_is_read_passes(tmp_path):
    rect, path = Rect(0, 0, 12, 12), tmp_path / "s.safetensors"
    save_state(path, random_state(rect), rect=rect, identity=IDENTITY, margin=4)
    content, corner, refused = path.read_bytes(), Rect(0, 0, 4, 4), 0
    for place in range(len(content) - random_state(rect).nbytes, len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        try:
            load_parts(path, identity=IDENTITY, near=corner)
        except UserError:
            refused += 1
    assert refused == 2 * 4 * 4 * 4  # channels, rows, columns, bytes
