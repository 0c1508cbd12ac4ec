"""Generation is exact wherever slabs and phases are cut, and computes no patch without need."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from teramind.diffusion import ddim, sampling_steps, to_grey, to_patches
from teramind.generate import Generator
from teramind.geometry import BIN, Layout, Rect, Slab, Windows
from teramind.network import Network, NetworkSpec
from teramind.noise import PhiloxNoise
from teramind.state import SavedStates

P = 32
STEPS = 15
BOUNDS = Rect(32, 64, 6 * P, 11 * P)
ROI = Rect(64, 160, 3 * P, 6 * P)
LATE = sampling_steps(50)[-STEPS:]
"""The end of a run, where few pixels of untrained networks are cut off at -1 or 1."""

LAYOUTS = {
    "2 x 3 slabs, 1 phase": (BOUNDS, 5, 1),
    "2 x 3 slabs, 3 phases": (BOUNDS, 5, 3),
    "2 x 3 slabs, 15 phases": (BOUNDS, 5, 15),
    "region, 1 phase": (ROI, 6, 1),
    "region, 3 phases": (ROI, 5, 3),
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


def random_network(dtype, sections=1):
    """A network with one stain whose every weight is random."""
    torch.manual_seed(1)
    network = Network(NetworkSpec(P, sections, ("DAPI",), 3, 2, 8))
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network.requires_grad_(False).eval().to(dtype)


def make_generator(network, *, expression=None, schedule=LATE, margin=1, phases=1, **layout):
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
    )


def run_slabs(generator):
    """State of the region, slab by slab and phase by phase."""
    layout, read = generator.layout, generator.initial(0)
    for phase in range(layout.phases):
        states = {}
        for slab in layout.slabs(phase):
            if phase:
                read = SavedStates([before[source] for source in layout.sources(slab, phase)])
            states[slab] = layout.core(slab, phase), generator.run_phase(slab, phase, read)
        before = states
    return SavedStates(list(before.values()))(layout.region)


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
        noise = network.predict_noise(to_patches(padded, P), counts, step.t, rows=rows, cols=cols)
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


@pytest.mark.parametrize("phases", [1, 3, 15])
def test_in_float32_slabs_and_phases_change_grey_levels_by_rounding_only(phases):
    network = random_network(torch.float32)
    whole = to_grey(run_slabs(make_generator(network)))
    slabs = to_grey(run_slabs(make_generator(network, slab=5 * P, phases=phases)))
    assert np.abs(whole.astype(int) - slabs).max() <= 1
    assert (whole == slabs).mean() >= 0.999


def test_a_slab_run_twice_is_the_same_bytes():
    network = random_network(torch.float32)
    states = []
    for _ in range(2):
        generator = make_generator(network, slab=5 * P, phases=15)
        states.append(generator.run_phase(Slab(0, 0, 0), 0, generator.initial(0)).tobytes())
    assert states[0] == states[1]
