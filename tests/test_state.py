"""State files: whole or absent, exact, and never mistaken for another or read when damaged."""

import resource
import weakref
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from teramind.engine.state import SavedStates, load_parts, load_state, parts_of, save_states
from teramind.errors import UserError
from teramind.geometry import Rect

IDENTITY = {"slab": "w00_r01_c02", "phase": "1", "run": "3f2a"}
RECT = Rect(32, 64, 4, 6)


def save(path, *states, rect=RECT, **settings):
    """A state file of windows 0, 1 ..."""
    windows = range(len(states))
    save_states(path, iter(states), windows=windows, rect=rect, identity=IDENTITY, **settings)


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
    save(path, random_state())
    return path.read_bytes()


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """Where damaged copies are put."""
    return tmp_path_factory.mktemp("damaged") / "state.safetensors"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_state_comes_back_bit_by_bit_in_the_stored_type(tmp_path, dtype):
    state = random_state()
    save(tmp_path / "s.safetensors", state, dtype=dtype)
    rect, found = load_state(tmp_path / "s.safetensors", window=0, identity=IDENTITY)
    assert rect == RECT
    assert found.dtype == np.float32
    assert found.tobytes() == state.astype(dtype).astype(np.float32).tobytes()


def test_windows_are_made_one_by_one_and_read_alone(tmp_path):
    path, alive = tmp_path / "s.safetensors", []

    def made():
        for window in range(3):
            assert not any(seen() is not None for seen in alive)  # the one before is gone
            state = random_state() + window
            alive.append(weakref.ref(state))
            yield state
            del state

    save_states(path, made(), windows=range(4, 7), rect=RECT, identity=IDENTITY, margin=1)
    for k, window in enumerate((4, 5, 6)):
        rect, found = load_state(path, window=window, identity=IDENTITY)
        assert rect == RECT
        assert found.tobytes() == (random_state() + k).tobytes()
    with pytest.raises(UserError, match="damaged"):
        load_state(path, window=7, identity=IDENTITY)


def test_the_library_reads_what_is_written(tmp_path):
    save(tmp_path / "s.safetensors", random_state(), dtype="float16")
    (found,) = load_file(tmp_path / "s.safetensors").values()
    assert found.tobytes() == random_state().astype(np.float16).tobytes()


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
        save(tmp_path / "s.safetensors", random_state())
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_state_before(tmp_path):
    path = tmp_path / "s.safetensors"
    save(path, random_state())
    before = path.read_bytes()
    with pytest.raises(OSError, match="File too large"), no_room():
        save(path, 0 * random_state())
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


@settings(max_examples=400)
@given(data=st.data())
def test_no_changed_byte_passes_unnoticed(content, damaged, data):
    place = data.draw(st.integers(0, len(content) - 1))
    flips = data.draw(st.integers(1, 255))
    changed = bytearray(content)
    changed[place] ^= flips
    damaged.write_bytes(changed)
    try:
        rect, found = load_state(damaged, window=0, identity=IDENTITY)
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
            load_state(damaged, window=0, identity=IDENTITY)


def test_a_truncated_file_is_damaged(content, damaged):
    for length in range(len(content)):
        damaged.write_bytes(content[:length])
        with pytest.raises(UserError, match="damaged"):
            load_state(damaged, window=0, identity=IDENTITY)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"state .*absent\.safetensors"):
        load_state(tmp_path / "absent.safetensors", window=0, identity=IDENTITY)


@pytest.mark.parametrize(
    ("key", "other"), [("slab", "w00_r01_c03"), ("phase", "0"), ("run", "77aa")]
)
def test_the_state_of_another_slab_phase_or_run_is_refused(content, damaged, key, other):
    damaged.write_bytes(content)
    with pytest.raises(UserError, match=f"belongs to {key} {IDENTITY[key]}, not {other}"):
        load_state(damaged, window=0, identity={**IDENTITY, key: other})


def test_neighbouring_states_read_as_one_plane():
    plane = np.random.default_rng(0).standard_normal((2, 10, 10)).astype(np.float32)
    parts = [Rect(100, 50, 6, 4), Rect(100, 54, 6, 6), Rect(106, 50, 4, 4)]
    whole = Rect(100, 50, 10, 10)
    read = SavedStates([(part, plane[:, *part.within(whole)]) for part in parts])
    plane[:, 6:, 4:] = np.nan
    np.testing.assert_array_equal(read(whole), plane)
    np.testing.assert_array_equal(read(Rect(104, 52, 4, 5)), plane[:, 4:8, 2:7])
    assert np.isnan(read(Rect(96, 50, 4, 10))).all()


@settings(max_examples=100)
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
    save(path, state, rect=rect, margin=8)
    corner = Rect(24, 56, 16, 16)
    ((place, found),) = load_parts(path, window=0, identity=IDENTITY, near=corner)
    assert place == Rect(32, 64, 8, 8)
    np.testing.assert_array_equal(found, state[:, :8, :8])
    whole, joined = load_state(path, window=0, identity=IDENTITY)
    assert whole == rect
    assert joined.tobytes() == state.tobytes()


def test_no_changed_byte_of_a_part_that_is_read_passes(tmp_path):
    rect, path = Rect(0, 0, 12, 12), tmp_path / "s.safetensors"
    save(path, random_state(rect), rect=rect, margin=4)
    content, corner, refused = path.read_bytes(), Rect(0, 0, 4, 4), 0
    for place in range(len(content) - random_state(rect).nbytes, len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        try:
            load_parts(path, window=0, identity=IDENTITY, near=corner)
        except UserError:
            refused += 1
    assert refused == 2 * 4 * 4 * 4  # channels, rows, columns, bytes
