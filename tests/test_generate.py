"""Generation is exact wherever slabs and phases are cut, and computes no patch without need."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plane_noise import predict_noise
from torch.nn import functional as F
from workflow_project import config_with

from teramind.config import parse_config
from teramind.engine import slab as jobs
from teramind.engine.generate import Generator
from teramind.engine.noise import PhiloxNoise
from teramind.engine.region import generate_region
from teramind.engine.solver import SOLVERS, ddim, sampling_steps
from teramind.engine.state import SavedStates, parts_of, to_grey
from teramind.errors import UserError
from teramind.expression.raster_writer import RasterWriter
from teramind.geometry import BIN, EMPTY, Layout, Rect, Slab, Windows
from teramind.network import Network, NetworkSpec
from teramind.network.fast import for_inference
from teramind.network.precision import set_precision
from teramind.training.objective import to_patches

P = 32
STEPS = 4
BOUNDS = Rect(32, 64, 3 * P, 5 * P)
ROI = Rect(64, 128, 2 * P, 2 * P)
LATE = sampling_steps(25)[-STEPS:]
"""The end of a run, where few pixels of untrained networks are cut off at -1 or 1."""

LAYOUTS = {
    "2 x 3 slabs, 1 phase": (BOUNDS, 2, 1),
    "2 x 3 slabs, 3 phases": (BOUNDS, 2, 3),
    "2 x 3 slabs, a phase per step": (BOUNDS, 2, STEPS),
    "region, 1 phase": (ROI, 2, 1),
    "region, 3 phases": (ROI, 2, 3),
}


class DenseExpression:
    """Counts of one section held in memory, zero beyond them."""

    def __init__(self, counts, rect):
        self.dense, self.rect = counts, rect

    def counts(self, *, sections, rect):
        assert not any(edge % BIN for edge in rect)
        out = np.zeros(
            (rect.height // BIN, rect.width // BIN, len(sections), self.dense.shape[-1]), np.uint8
        )
        shared = rect.cut(self.rect)
        if 0 in sections:
            place = out[:, :, list(sections).index(0)]
            place[in_bins(shared, rect)] = self.dense[in_bins(shared, self.rect)]
        return out

    def totals(self, *, section, rect):
        return self.counts(sections=[section], rect=rect).sum((2, 3), dtype=np.int64)


def in_bins(rect, outer):
    """Slices of a rectangle in an array of the bins of `outer`."""
    return tuple(slice(s.start // BIN, s.stop // BIN) for s in rect.within(outer))


def random_expression(rect=BOUNDS):
    """At least one molecule in every bin under and around `rect`."""
    rect = rect.grown(2 * P)
    shape = (rect.height // BIN, rect.width // BIN, 3)
    return DenseExpression(np.random.default_rng(3).integers(1, 5, shape, np.uint8), rect)


def random_network(dtype):
    """A network with one stain whose every weight is random."""
    torch.manual_seed(1)
    network = Network(NetworkSpec(P, 1, ("DAPI",), 3, 2, 8))
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network.requires_grad_(False).eval().to(dtype)


def make_generator(
    network,
    *,
    expression=None,
    schedule=LATE,
    solver=SOLVERS["published"],
    margin=1,
    phases=1,
    **layout,
):
    """A generator of one section; `layout` may give bounds, region and slab, in pixels."""
    bounds = layout.get("bounds", BOUNDS)
    region = layout.get("region", bounds)
    return Generator(
        network=network,
        expression=expression or random_expression(),
        noise=PhiloxNoise(seed=7, stains=1, patch=P),
        layout=Layout(
            bounds=bounds,
            region=region,
            patch=P,
            slab=layout.get("slab", 16 * P),
            windows=Windows(sections=network.spec.sections, planes=1),
            steps=len(schedule),
            phases=phases,
        ),
        schedule=schedule,
        margin=margin,
        solver=solver,
    )


def parts_near(layout, states, slab, phase):
    """What a slab's job reads of the states that the phase before left, and nothing else."""
    near, margin = layout.read(slab, phase), layout.read_margin(phase - 1)
    return [
        (part, state[:, *part.within(rect)])
        for rect, state in (states[source] for source in layout.sources(slab, phase))
        for part in parts_of(rect, margin)
        if part.cut(near) != EMPTY
    ]


def run_slabs(generator):
    """State of the region, slab by slab and phase by phase."""
    layout, states = generator.layout, {}
    for phase in range(layout.phases):
        before, states = states, {}
        for slab in layout.slabs(phase):
            parts = parts_near(layout, before, slab, phase) if phase else []
            read = SavedStates(parts) if phase else generator.initial(0)
            states[slab] = layout.core(slab, phase), generator.run_phase(slab, phase, read)
    return SavedStates(list(states.values()))(layout.region)


def whole_plane(generator):
    """State of the bounds by the definition: every patch of every step, in one go."""
    layout, network = generator.layout, generator.network
    bounds, half = layout.bounds, P // 2
    rows, cols = bounds.height // P + 1, bounds.width // P + 1
    expression = generator.expression.counts(
        sections=layout.windows.expression(0), rect=bounds.grown(half)
    )
    counts = torch.from_numpy(expression).unflatten(1, (cols, -1)).unflatten(0, (rows, -1))
    counts = counts.transpose(1, 2).flatten(0, 1).to(network.stem.weight)
    state = torch.from_numpy(generator.initial(0)(bounds))[None].to(network.stem.weight)
    for step in generator.schedule:
        padded = F.pad(state, (half,) * 4, value=-1)
        noise = predict_noise(network, to_patches(padded, P), counts, step.t, rows=rows)
        tiled = noise.unflatten(0, (rows - 1, cols - 1)).permute(2, 0, 3, 1, 4)
        state = ddim(state, tiled.reshape(state.shape), step)
    return state[0].numpy()


@pytest.fixture(scope="module")
def precise():
    """A network in float64."""
    return random_network(torch.float64)


@pytest.fixture(scope="module")
def reference(precise):
    """State of the whole bounds in float64."""
    return whole_plane(make_generator(precise))


def test_the_reference_is_no_black_and_white_image(reference):
    assert (np.abs(reference) < 0.99).mean() > 0.5
    assert reference.std() > 0.2


@pytest.mark.parametrize("name", LAYOUTS)
def test_slabs_and_phases_change_nothing(precise, reference, name):
    region, slab, phases = LAYOUTS[name]
    state = run_slabs(make_generator(precise, region=region, slab=slab * P, phases=phases))
    assert state.dtype == np.float64
    assert np.abs(state - reference[:, *region.within(BOUNDS)]).max() < 1e-9


def test_in_float32_slabs_and_phases_change_grey_levels_by_rounding_only():
    network = random_network(torch.float32)
    whole = to_grey(run_slabs(make_generator(network)))
    for phases in (1, 3, STEPS):
        slabs = to_grey(run_slabs(make_generator(network, slab=2 * P, phases=phases)))
        assert np.abs(whole.astype(int) - slabs).max() <= 1
        assert (whole == slabs).mean() >= 0.999


def test_a_slab_run_twice_is_the_same_bytes():
    network = random_network(torch.float32)
    states = []
    for _ in range(2):
        generator = make_generator(network, slab=2 * P, phases=3)
        states.append(generator.run_phase(Slab(0, 0, 0), 0, generator.initial(0)).tobytes())
    assert states[0] == states[1]


def test_beyond_the_bounds_the_state_is_minus_1_and_nothing_is_read(precise, reference):
    generator = make_generator(precise, bounds=ROI)
    asked = []

    def read(rect):
        asked.append(rect)
        return generator.initial(0)(rect)

    state = generator.run_phase(Slab(0, 0, 0), 0, read)
    assert all(rect.cut(ROI) == rect for rect in asked)
    assert np.abs(state - whole_plane(generator)).max() < 1e-9
    assert np.abs(state - reference[:, *ROI.within(BOUNDS)]).max() > 1e-3


def one_step(network, *, pixel=None, molecule=None):
    """State after one step, perhaps with one pixel or one bin of expression (y, x) changed."""
    expression = random_expression()
    if molecule:
        y, x = molecule[0] - expression.rect.y, molecule[1] - expression.rect.x
        expression.dense[y // BIN, x // BIN, 0] += 3
    generator = make_generator(network, expression=expression, schedule=sampling_steps(1))

    def read(rect):
        state = 0.1 * generator.initial(0)(rect).astype(float)
        if pixel:
            state[:, pixel[0] - rect.y, pixel[1] - rect.x] += 0.5
        return state

    return generator.run_phase(Slab(0, 0, 0), 0, read)


def moved(a, b):
    """Patches (row, column of the plane) in which two states of the bounds differ."""
    differs = (a != b).any(0).reshape(BOUNDS.height // P, P, BOUNDS.width // P, P).any((1, 3))
    return {(BOUNDS.y // P + row, BOUNDS.x // P + col) for row, col in np.argwhere(differs)}


def reading(y, x):
    """Patches of the bounds that contain a pixel when they are grown by half a patch."""
    return {
        (row, col)
        for row in range(BOUNDS.y // P, BOUNDS.bottom // P)
        for col in range(BOUNDS.x // P, BOUNDS.right // P)
        if row * P - P // 2 <= y < (row + 1) * P + P // 2
        and col * P - P // 2 <= x < (col + 1) * P + P // 2
    }


@pytest.fixture(scope="module")
def unchanged(precise):
    """State after one step."""
    return one_step(precise)


@settings(max_examples=6)
@given(st.integers(BOUNDS.y, BOUNDS.bottom - 1), st.integers(BOUNDS.x, BOUNDS.right - 1))
def test_a_pixel_moves_the_patches_half_a_patch_around_it(precise, unchanged, y, x):
    assert moved(one_step(precise, pixel=(y, x)), unchanged) == reading(y, x)


@settings(max_examples=6)
@given(
    st.integers(BOUNDS.y - P, BOUNDS.bottom + P - 1),
    st.integers(BOUNDS.x - P, BOUNDS.right + P - 1),
)
def test_a_bin_moves_the_patches_half_a_patch_around_it(precise, unchanged, y, x):
    assert moved(one_step(precise, molecule=(y, x)), unchanged) == reading(y, x)


def tissue_at(patches, rect):
    """Expression with one molecule in each of the patches (row, column of the plane)."""
    counts = np.zeros((rect.height // BIN, rect.width // BIN, 3), np.uint8)
    for row, col in patches:
        counts[(row * P - rect.y) // BIN, (col * P - rect.x) // BIN, 1] = 1
    return DenseExpression(counts, rect)


def near(patches, reach, rect):
    """Patches of `rect` at most `reach` rows and columns from any of `patches`."""
    return {
        (row, col)
        for row in range(rect.y // P, rect.bottom // P)
        for col in range(rect.x // P, rect.right // P)
        if any(max(abs(row - r), abs(col - c)) <= reach for r, c in patches)
    }


plane = Rect(2 * P, P, 9 * P, 10 * P)
places = st.tuples(st.integers(2, 10), st.integers(1, 10))


@settings(max_examples=50)
@given(
    patches=st.sets(places, max_size=4),
    corner=places,
    margin=st.integers(0, 2),
    reach=st.integers(0, 3),
)
def test_needed_is_tissue_in_the_region_grown_by_the_steps_left(
    precise, patches, corner, margin, reach
):
    region = Rect(corner[0] * P, corner[1] * P, 3 * P, 4 * P).cut(plane)
    generator = make_generator(
        precise,
        expression=tissue_at(patches, plane),
        bounds=plane,
        region=region,
        margin=margin,
    )
    wanted = near(near(patches, margin, region), reach, plane)
    found = np.argwhere(generator.needed(0, plane, reach)).tolist()
    assert {(plane.y // P + row, plane.x // P + col) for row, col in found} == wanted


@pytest.fixture
def half_empty():
    """Expression in the two left columns of the bounds only."""
    left = [(BOUNDS.y // P + row, BOUNDS.x // P + col) for row in range(3) for col in range(2)]
    return tissue_at(left, BOUNDS)


def test_background_is_skipped_and_tissue_is_as_if_nothing_were(precise, half_empty):
    everything = run_slabs(make_generator(precise, expression=half_empty, margin=9))
    assert np.isfinite(everything).all()
    skipping = make_generator(precise, expression=half_empty, slab=2 * P, phases=3)
    state = run_slabs(skipping)
    np.testing.assert_allclose(state[..., : 3 * P], everything[..., : 3 * P], atol=1e-9)
    assert np.isnan(state[..., 3 * P :]).all()


PLANE = Rect(0, 0, 9 * P, 4 * P)
ISLANDS = tissue_at([(0, 0), (0, 3), (1, 2), (7, 1), (8, 1)], PLANE)  # whole bands lie between


def around_islands(network, margin):
    """The state of a plane of islands, as far as `margin` patches around them."""
    settings = {"expression": ISLANDS, "bounds": PLANE, "schedule": LATE[-2:]}
    return run_slabs(make_generator(network, margin=margin, **settings))


@pytest.fixture(scope="module")
def everywhere(precise):
    """The state of a plane of islands and of all between them."""
    return around_islands(precise, 9)


@pytest.mark.parametrize(
    ("batch", "gene_bytes"), [(1, 2**30), (9, 0), (9, 40_000), (9, 2**30), (1000, 2**30)]
)
def test_what_is_computed_together_or_kept_changes_nothing(
    precise, everywhere, monkeypatch, batch, gene_bytes
):
    monkeypatch.setattr("teramind.engine.phase_plane.BATCH", batch)
    monkeypatch.setattr("teramind.engine.gene_features.GENE_BYTES", gene_bytes)
    state = around_islands(precise, 0)
    drawn = np.isfinite(state)
    assert drawn.sum() == 5 * P * P
    np.testing.assert_allclose(state[drawn], everywhere[drawn], rtol=0, atol=1e-9)


def test_each_step_computes_no_more_patches_than_the_steps_after_it_read(precise, half_empty):
    generator = make_generator(precise, expression=half_empty, margin=0, schedule=LATE[-3:])
    wanted = near([(row, col) for row in range(1, 4) for col in range(2, 4)], 0, BOUNDS)
    sizes = [len(near(wanted, left, BOUNDS)) for left in (2, 1, 0)]
    done = []
    generator.run_phase(Slab(0, 0, 0), 0, generator.initial(0), done.append)
    ends = list(itertools.accumulate(done))
    assert set(itertools.accumulate(sizes)) <= set(ends)
    assert ends[-1] == sum(sizes) == generator.work(Slab(0, 0, 0), 0)


def test_nothing_is_held_beyond_the_bounds(precise):
    generator = make_generator(precise, bounds=ROI, schedule=sampling_steps(200))
    assert generator.layout.computed(Slab(0, 0, 0), 0) == ROI
    masks = generator.masks(Slab(0, 0, 0), 0)
    assert all(mask.shape == (2, 2) and mask.all() for mask in masks)


def test_a_slab_of_background_never_calls_the_network(precise, half_empty, monkeypatch):
    called = []
    for part in ("encode", "decode", "embed_time"):
        monkeypatch.setattr(precise, part, lambda *_, part=part: called.append(part))
    monkeypatch.setattr(precise.genes, "forward", lambda *_: called.append("genes"))
    generator = make_generator(precise, expression=half_empty, slab=2 * P, phases=3)
    background = Slab(0, 0, 2)
    assert generator.work(background, 2) == 0
    assert np.isnan(generator.run_phase(background, 2, generator.initial(0))).all()
    assert called == []
    assert generator.work(Slab(0, 0, 0), 2) > 0


def test_each_aligned_patch_is_encoded_once_per_step(precise, monkeypatch):
    encoded = []
    encode = precise.encode

    def count(state, genes, time):
        encoded.extend(patch.numpy().tobytes() for patch in state)
        return encode(state, genes, time)

    monkeypatch.setattr(precise, "encode", count)
    generator = make_generator(precise, schedule=LATE[-2:])
    run_slabs(generator)
    rows, cols = BOUNDS.height // P + 1, BOUNDS.width // P + 1
    assert len(encoded) == 2 * rows * cols
    assert len(set(encoded)) == len(encoded)


def test_in_bfloat16_the_state_stays_float32_and_the_image_close():
    network = random_network(torch.float32)
    exact = run_slabs(make_generator(network, bounds=ROI))
    set_precision(network, torch.bfloat16)
    rough = run_slabs(make_generator(for_inference(network), bounds=ROI))
    assert rough.dtype == np.float32
    difference = np.abs(rough - exact)
    assert 0 < np.sqrt((difference**2).mean()) < 0.02 * exact.std()


@pytest.mark.parametrize("able", [True, False])
def test_bfloat16_is_refused_where_it_would_be_slower(monkeypatch, able):
    config = parse_config(config_with(generate__precision="bfloat16"))
    monkeypatch.setattr("teramind.network.device.has_bfloat16", lambda: able)
    if able:
        assert jobs.device_for(config) == "cpu"
        return
    with pytest.raises(UserError, match="precision: bfloat16, but this CPU has no instructions"):
        jobs.device_for(config)


def test_what_is_no_number_is_refused_and_does_not_pass_for_background(tmp_path):
    torch.manual_seed(0)
    spec = NetworkSpec(P, 4, ("DAPI", "PolyT"), 3, 2, 8, panel=("a", "b", "c"))
    network = Network(spec).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(1e12)
    with RasterWriter(
        tmp_path / "raster", panel=spec.panel, sections=2, extent=Rect(0, 0, 64, 64)
    ) as writer:
        section, y, x, gene = np.array([[0], [40], [40], [1]])
        writer.add(section=section, y=y, x=x, gene=gene)
    with pytest.raises(UserError, match="patches hold what is no number"):
        generate_region(network, tmp_path / "raster", steps=2)
