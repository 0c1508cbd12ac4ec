"""The lattice: rectangles, windows, slabs and phases fit together without overlap or gap."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from teramind.errors import UserError
from teramind.geometry import EMPTY, PADDING, Layout, Rect, Slab, Windows

rects = st.builds(
    Rect, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9), st.integers(1, 9)
)
fast = settings(max_examples=100)


def pixels(rect):
    """The set of pixels of a rectangle."""
    return {(y, x) for y in range(rect.y, rect.bottom) for x in range(rect.x, rect.right)}


@st.composite
def layouts(draw):
    """Any layout of up to 12 x 12 patches with a region inside."""
    patch, steps = draw(st.sampled_from([32, 64])), draw(st.integers(1, 9))
    phases = draw(st.integers(1, steps))
    y, x, height, width = (draw(st.integers(a, 12)) for a in (0, 0, 1, 1))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    inner = (
        *(y + top, x + left),
        *(draw(st.integers(1, height - top)), draw(st.integers(1, width - left))),
    )
    smallest = -(-steps // phases) if phases > 1 else 1
    return Layout(
        bounds=Rect(*(patch * n for n in (y, x, height, width))),
        region=Rect(*(patch * n for n in inner)),
        patch=patch,
        slab=patch * draw(st.integers(smallest, smallest + 4)),
        windows=Windows(sections=4, planes=draw(st.integers(1, 7))),
        steps=steps,
        phases=phases,
        stack=draw(st.integers(1, 3)),
    )


def painted(layout, rects):
    """How often each patch of the bounds is covered: (patch y, patch x)."""
    p, bounds = layout.patch, layout.bounds
    times = np.zeros((bounds.height // p, bounds.width // p), int)
    for rect in rects:
        assert rect.cut(bounds) == rect
        assert not any(edge % p for edge in rect)
        times[rect.within(bounds, step=p)] += 1
    return times


@fast
@given(rects, rects)
def test_a_cut_holds_the_shared_pixels(a, b):
    assert pixels(a.cut(b)) == pixels(a) & pixels(b)
    assert a.cut(b) == b.cut(a)
    assert a.cut(a) == a
    assert a.cut(EMPTY) == EMPTY


@fast
@given(rects, st.integers(0, 4))
def test_growing_adds_every_pixel_within_the_margin(rect, margin):
    near = range(-margin, margin + 1)
    grown = {(y + dy, x + dx) for y, x in pixels(rect) for dy in near for dx in near}
    assert pixels(rect.grown(margin)) == grown


@fast
@given(rects, st.integers(1, 5))
def test_rounding_out_is_the_union_of_the_cells_touched(rect, step):
    cells = {(y // step, x // step) for y, x in pixels(rect)}
    rounded = rect.rounded_out(step)
    assert {(y // step, x // step) for y, x in pixels(rounded)} == cells
    assert len(pixels(rounded)) == len(cells) * step**2


@fast
@given(rects, rects)
def test_slices_address_a_rectangle_inside_another(a, b):
    shared = a.cut(b)
    plane = np.arange(a.height * a.width).reshape(a.height, a.width)
    wanted = [(y - a.y) * a.width + x - a.x for y, x in sorted(pixels(shared))]
    assert plane[shared.within(a)].ravel().tolist() == wanted


@fast
@given(rects, st.integers(1, 7))
def test_blocks_cover_a_rectangle_once_row_by_row(rect, edge):
    blocks = [*rect.blocks(edge)]
    assert blocks == sorted(blocks)
    assert len(blocks) == -(-rect.height // edge) * -(-rect.width // edge)
    assert all(max(block.height, block.width) <= edge for block in blocks)
    assert sorted(p for block in blocks for p in pixels(block)) == sorted(pixels(rect))


@pytest.mark.parametrize(("sections", "windows"), [(1, 50), (4, 25), (8, 12), (16, 6)])
def test_fifty_sections_make_the_published_windows(sections, windows):
    assert len(Windows(sections=sections, planes=50)) == windows


@pytest.mark.parametrize(("sections", "lost"), [(1, 0), (4, 0), (8, 2), (16, 2)])
def test_only_windows_of_8_and_16_lose_the_outermost_sections(sections, lost):
    windows = Windows(sections=sections, planes=50)
    assert windows.generated == 50 - lost
    assert windows.first == lost // 2


@fast
@given(st.sampled_from(sorted(PADDING)), st.integers(1, 60))
def test_windows_generate_every_section_once_amid_its_expression(sections, planes):
    windows = Windows(sections=sections, planes=planes)
    images = [z for w in range(len(windows)) for z in windows.images(w)]
    assert images == list(range(windows.first, windows.first + len(images)))
    assert windows.generated <= len(images) < windows.generated + windows.depth
    assert [windows.z(section) for section in windows.drawn] == list(range(windows.generated))
    for w in range(len(windows)):
        read, made = windows.expression(w), windows.images(w)
        assert len(read) == sections
        assert made.start - read.start == (sections - windows.depth) // 2
        assert {windows.of(section) for section in made} == {w}


def test_one_section_suffices_for_windows_of_four():
    windows = Windows(sections=4, planes=1)
    assert (len(windows), windows.generated) == (1, 1)
    assert (windows.expression(0), windows.images(0)) == (range(-1, 3), range(0, 2))


@fast
@given(layouts())
def test_phases_share_the_steps_evenly_and_in_order(layout):
    parts = [layout.phase_steps(phase) for phase in range(layout.phases)]
    assert [step for part in parts for step in part] == list(range(layout.steps))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@fast
@given(layouts())
def test_slabs_tile_what_is_wanted_of_each_phase(layout):
    for phase in range(layout.phases):
        slabs = list(layout.slabs(phase))
        assert len(set(slabs)) == len(slabs)
        singles = [single for slab in slabs for single in layout.singles(slab)]
        wanted = painted(layout, [layout.wanted(phase)])
        for window in range(len(layout.windows)):
            cores = [layout.core(single, phase) for single in singles if single.window == window]
            assert EMPTY not in cores
            np.testing.assert_array_equal(painted(layout, cores), wanted)
            holders = layout.slabs_of_window(window, phase)
            assert [layout.core(slab, phase) for slab in holders] == cores


@fast
@given(layouts())
def test_jobs_are_the_slabs_of_all_phases(layout):
    assert layout.jobs == sum(len(list(layout.slabs(p))) for p in range(layout.phases))
    depths = [len(layout.windows_of(slab)) for slab in layout.slabs(0)]
    assert max(depths) == min(layout.stack, len(layout.windows))


@fast
@given(layouts())
def test_slabs_of_the_last_phase_are_the_region(layout):
    cores = [
        layout.core(s, layout.phases - 1) for s in layout.slabs_of_window(0, layout.phases - 1)
    ]
    np.testing.assert_array_equal(painted(layout, cores), painted(layout, [layout.region]))
    assert (cores[0].y, cores[0].x) == (layout.region.y, layout.region.x)
    assert all(max(core.height, core.width) <= layout.slab for core in cores)


@fast
@given(layouts())
def test_what_a_phase_reads_its_sources_hold(layout):
    for phase in range(1, layout.phases):
        reach = (len(layout.phase_steps(phase)) - 1) * layout.patch + layout.patch // 2
        before = set(layout.slabs(phase - 1))
        for slab in layout.slabs(phase):
            sources = layout.sources(slab, phase)
            assert set(sources) <= before
            read = layout.core(slab, phase).grown(reach).cut(layout.bounds)
            held = painted(layout, [layout.core(s, phase - 1) for s in sources])
            rows, cols = read.rounded_out(layout.patch).cut(layout.bounds).within(layout.bounds)
            p = layout.patch
            assert (
                held[rows.start // p : rows.stop // p, cols.start // p : cols.stop // p] == 1
            ).all()


@fast
@given(layouts())
def test_sources_are_the_slabs_around_that_had_work_before(layout):
    for phase in range(1, layout.phases):
        for slab in layout.slabs(phase):
            around = [
                s
                for s in layout.slabs_of_window(slab.window, phase - 1)
                if max(abs(s.row - slab.row), abs(s.col - slab.col)) <= 1
            ]
            assert layout.sources(slab, phase) == around
            assert slab in around


@fast
@given(layouts())
def test_a_slab_keeps_its_place_through_the_phases(layout):
    for phase in range(layout.phases):
        for slab in layout.slabs(phase):
            assert min(slab) >= 0
            assert layout.core(slab, phase) == layout.rect(slab).cut(layout.wanted(phase))
            y, x = layout.origin
            assert (layout.region.y - y) % layout.slab == (layout.region.x - x) % layout.slab == 0


def test_voxels_count_one_stain_of_the_region():
    region = Rect(32, 64, 64, 96)
    windows = Windows(sections=8, planes=20)
    layout = Layout(Rect(0, 0, 256, 256), region, 32, 64, windows, steps=2, phases=1)
    assert layout.voxels == 64 * 96 * 18


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slab": 48}, "slab: 48 pixels is no multiple of the patch edge 32"),
        ({"slab": 0}, "slab: 0 pixels"),
        ({"slab": 64}, "at least 96, or phases at least 4"),
        ({"phases": 9}, r"phases: 9; must lie between 1 and steps \(8\)"),
        ({"phases": 0}, "phases: 0"),
    ],
)
def test_a_layout_that_cannot_work_is_refused(change, message):
    bounds = Rect(0, 0, 256, 256)
    fitting = {"patch": 32, "slab": 96, "steps": 8, "phases": 3, "windows": Windows(4, 4)}
    Layout(bounds=bounds, region=bounds, **fitting)
    with pytest.raises(UserError, match=message):
        Layout(bounds=bounds, region=bounds, **{**fitting, **change})


@fast
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_the_phases_advised_for_a_small_slab_are_enough(steps, phases, patches):
    assume(phases <= steps)
    place = {"bounds": Rect(0, 0, 64, 64), "region": Rect(0, 0, 64, 64), "patch": 32}
    rest = {**place, "slab": 32 * patches, "windows": Windows(1, 1), "steps": steps}
    try:
        Layout(**rest, phases=phases)
    except UserError as error:
        Layout(**rest, phases=int(str(error).rpartition(" ")[2]))


@fast
@given(st.builds(Slab, *[st.integers(0, 9999)] * 3))
def test_a_slab_reads_back_its_name(slab):
    assert Slab.parse(str(slab)) == slab


@pytest.mark.parametrize("name", ["", "w0_r0", "w00_r00_c00.json", "w-1_r00_c00", "r00_c00_w00"])
def test_other_names_are_no_slabs(name):
    with pytest.raises(UserError, match="w03_r01_c02"):
        Slab.parse(name)


@fast
@given(layouts(), st.builds(Slab, *[st.integers(0, 4)] * 3))
def test_only_slabs_with_work_are_there(layout, slab):
    for phase in range(layout.phases):
        if slab in set(layout.slabs(phase)):
            layout.require(slab, phase)
        else:
            with pytest.raises(UserError, match=f"slab {slab}: there is none"):
                layout.require(slab, phase)


@fast
@given(layouts())
def test_the_order_of_jobs_keeps_what_is_read_before_what_reads_it(layout):
    ranks = {
        (slab, phase): layout.priority(slab, phase)
        for phase in range(layout.phases)
        for slab in layout.slabs(phase)
    }
    assert min(ranks.values()) > 0
    for (slab, phase), rank in ranks.items():
        if phase:
            read = [ranks[source, phase - 1] for source in layout.sources(slab, phase)]
            assert rank <= min(read)
    for window in range(0, len(layout.windows) - layout.stack, layout.stack):
        here, next_one = (
            [rank for (slab, _), rank in ranks.items() if slab.window == w]
            for w in (window, window + layout.stack)
        )
        assert min(here) > max(next_one)
