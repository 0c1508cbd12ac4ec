"""Parts of the plane: they cover it, keep their distance, are the same again, and are drawn."""

import imagecodecs
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from teramind.errors import UserError
from teramind.geometry import BIN, EMPTY, Rect
from teramind.report.split import write_split_picture
from teramind.split import Split, random_split, whole_plane
from teramind.training.places import Places

PLANE = Rect(0, 0, 1000, 1400)
ASKED = {"block": 200, "guard": 48, "validation": 0.15, "test": 0.2, "seed": 3}

splits = st.builds(
    lambda **asked: asked,
    block=st.integers(100, 400),
    guard=st.integers(0, 100),
    validation=st.floats(0.05, 0.3),
    test=st.floats(0.05, 0.3),
    seed=st.integers(0, 99),
)


def split_or_skip(plane, asked):
    try:
        return random_split(plane, **asked)
    except UserError:
        assume(False)


def distance(a, b):
    """Pixels between two rectangles; 0 when they touch or overlap."""
    gaps = (b.y - a.bottom, a.y - b.bottom, b.x - a.right, a.x - b.right)
    return max(0, *gaps)


boxes = st.none() | st.builds(
    Rect, st.integers(0, 500), st.integers(0, 700), st.integers(1, 500), st.integers(1, 700)
)
"""Test parts named by hand, inside `PLANE`; none: drawn."""


@given(splits, st.integers(1000, 2000), st.integers(1400, 2000), boxes)
@settings(max_examples=40, deadline=None)
def test_the_parts_cover_the_plane_once(asked, height, width, named):
    plane = Rect(0, 0, height, width)
    split = split_or_skip(plane, asked | {"named": named})
    rects = [*split.train, *split.validation, split.test]
    assert sum(r.height * r.width for r in rects) == height * width
    for i, rect in enumerate(rects):
        assert rect.cut(plane) == rect
        assert all(rect.cut(other) == EMPTY for other in rects[i + 1 :])


@given(splits, st.sampled_from([64, 96]), boxes)
@settings(max_examples=25, deadline=None)
def test_windows_of_different_parts_keep_the_guard_between_them(asked, size, named):
    split = split_or_skip(PLANE, asked | {"named": named})
    found = {
        part: [
            Rect(int(y), int(x), size, size)
            for y, x in Places(PLANE, size=size, margin=16, closed=split.closed(part))
        ]
        for part in ("train", "validation", "test")
    }
    rng = np.random.default_rng(0)
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        for _ in range(50 if found[one] and found[other] else 0):
            a, b = (found[part][rng.integers(len(found[part]))] for part in (one, other))
            assert distance(a, b) >= asked["guard"]
    for window in found["validation"][:: max(len(found["validation"]) // 20, 1)]:
        inside = window.cut(PLANE)
        held = sum(inside.cut(r).height * inside.cut(r).width for r in split.validation)
        assert held == inside.height * inside.width


def test_the_seed_alone_decides():
    assert random_split(PLANE, **ASKED) == random_split(PLANE, **ASKED)
    others = [random_split(PLANE, **ASKED | {"seed": seed}) for seed in range(10)]
    assert len({split.test for split in others}) > 3
    assert len({split.validation for split in others}) > 3


def test_the_shares_are_about_those_asked_for():
    split = random_split(PLANE, **ASKED)
    whole = PLANE.height * PLANE.width
    assert split.test.height * split.test.width / whole == pytest.approx(0.2, abs=0.08)
    held = sum(r.height * r.width for r in split.validation)
    assert held / whole == pytest.approx(0.15, abs=0.04)


def test_inner_edges_lie_on_bins():
    split = random_split(PLANE, **ASKED)
    for rect in (*split.train, *split.validation):
        assert rect.y % BIN == 0 and rect.x % BIN == 0


def test_a_box_named_by_hand_is_the_test_part():
    box = Rect(333, 111, 222, 444)
    split = random_split(PLANE, **ASKED, named=box)
    assert split.test == box
    assert all(rect.cut(box) == EMPTY for rect in (*split.train, *split.validation))
    alone = whole_plane(PLANE, box)
    assert alone.closed("train") == [box]
    assert alone.validation == ()


@pytest.mark.parametrize("changes", [{"block": 5000}, {"validation": 0.9}])
def test_a_split_that_leaves_nothing_to_train_on_is_refused_in_one_line(changes):
    fault = r"^reference\.split: \d+ block\(s\) of .* leave none to train on; make block .*smaller$"
    with pytest.raises(UserError, match=fault):
        random_split(PLANE, **ASKED | changes)


def test_a_split_is_read_as_it_was_written(tmp_path):
    split = random_split(PLANE, **ASKED)
    split.write(tmp_path / "split.json")
    assert Split.read(tmp_path / "split.json") == split
    (tmp_path / "split.json").write_text("{}")
    with pytest.raises(UserError, match=r"split\.json: not readable"):
        Split.read(tmp_path / "split.json")


def test_the_parts_are_drawn_in_their_colours(tmp_path):
    split = random_split(PLANE, **ASKED)
    images = np.full((2, 1, PLANE.height, PLANE.width), 100, np.uint8)
    write_split_picture(split, images, tmp_path / "split.png")
    pixels = imagecodecs.png_decode((tmp_path / "split.png").read_bytes())[..., :3].astype(int)
    red, _, blue = np.moveaxis(pixels, -1, 0)
    assert (red - blue > 25).mean() > 0.05 and (blue - red > 25).mean() > 0.1


def test_a_brain_of_small_blocks_is_split_in_a_blink():
    split = random_split(
        Rect(0, 0, 73216, 105984), block=256, guard=32, validation=0.1, test=0.1, seed=0
    )
    assert len(split.train) + len(split.validation) > 100_000
