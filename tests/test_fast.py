"""The forms of the network for inference compute the same numbers, to rounding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generate import make_generator, random_network, run_slabs
from torch.nn import functional as F

from teramind.geometry import Rect
from teramind.network import Network, NetworkSpec
from teramind.network.blocks import ResidualBlock
from teramind.network.fast import (
    FOLDED,
    NARROWEST,
    PLAIN,
    WINOGRAD,
    FastBlock,
    FastNetwork,
    for_inference,
)
from teramind.network.precision import set_precision
from teramind.network.winograd import WinogradConv


def convolution(inputs, outputs, dtype):
    """Weights and bias of a 3-D convolution, of the size that networks start with."""
    weight = torch.randn(outputs, inputs, 3, 3, 3, dtype=dtype) / (27 * inputs) ** 0.5
    return weight, torch.randn(outputs, dtype=dtype)


def fast(x, weight, bias):
    """Winograd convolution of maps (n, c, z, y, x)."""
    padded = F.pad(x.permute(2, 3, 4, 0, 1), (0, 0, 0, 0, 1, 1, 1, 1))
    return WinogradConv(weight, bias, x.shape[2])(padded).permute(3, 4, 0, 1, 2)


@settings(max_examples=30)
@given(
    sections=st.integers(1, 2),
    edge=st.sampled_from([4, 8, 12, 16, 24, 64]),
    patches=st.integers(1, 5),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 5),
)
def test_a_winograd_convolution_is_a_zero_padded_3d_convolution(
    sections, edge, patches, inputs, outputs
):
    torch.manual_seed(edge)
    weight, bias = convolution(inputs, outputs, torch.float64)
    x = torch.randn(patches, inputs, sections, edge, edge, dtype=torch.float64)
    expected = F.conv3d(x, weight, bias, padding=1)
    torch.testing.assert_close(fast(x, weight, bias), expected, rtol=0, atol=1e-12)


def test_its_rounding_is_that_of_the_direct_convolution():
    torch.manual_seed(0)
    weight, bias = convolution(96, 32, torch.float64)
    x = F.silu(torch.randn(3, 96, 2, 16, 16, dtype=torch.float64))
    exact = F.conv3d(x, weight, bias, padding=1)
    single = x.float(), weight.float(), bias.float()
    direct = (F.conv3d(*single, padding=1) - exact).square().mean().sqrt()
    ours = (fast(*single) - exact).square().mean().sqrt()
    assert ours < 4 * direct


FORMS = {"winograd": WINOGRAD, "folded": FOLDED, "plain": PLAIN}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@every_form
@pytest.mark.parametrize(
    "size", [(4, 32, 2, 5, 4, 8), (4, 64, 1, 3, 2, 8), (1, 32, 2, 3, 4, 8), (4, 96, 2, 3, 2, 8)]
)
def test_the_whole_network_predicts_the_same(size, form):
    sections, patch, stains, genes, base, embed = size
    torch.manual_seed(1)
    spec = NetworkSpec(patch, sections, ("DAPI", "PolyT")[:stains], genes, base, embed)
    network = Network(spec).requires_grad_(False).eval().double()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    state = torch.randn(3, spec.channels, patch, patch, dtype=torch.float64)
    counts = torch.randint(0, 4, (3, spec.bins, spec.bins, sections, genes)).double()
    time = network.embed_time(torch.tensor([700]))
    plain, quick = (
        one.decode(one.encode(state, one.genes(counts), time), time)
        for one in (network, FastNetwork(network, form))
    )
    torch.testing.assert_close(quick, plain, rtol=0, atol=1e-11 * plain.abs().max().item())


@every_form
@pytest.mark.parametrize(
    ("widths", "outputs", "resample"),
    [([3], 3, None), ([2, 3], 5, None), ([2, 3], 4, None), ([3], 3, "up"), ([3], 3, "down")],
)
def test_a_residual_block_reads_maps_as_if_concatenated(widths, outputs, resample, form):
    torch.manual_seed(2)
    block = ResidualBlock(sum(widths), outputs, 6, resample=resample).double().eval()
    for parameter in block.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    block.requires_grad_(False)
    maps = [torch.randn(3, 8, 8, 2, width, dtype=torch.float64) for width in widths]
    time = torch.randn(1, 6, dtype=torch.float64)
    expected = block(torch.cat(maps, -1), time)
    found = form.turn(FastBlock(block, form, 2)([form.turn(part) for part in maps], time))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def in_two_slabs(network):
    """The state of 2 x 3 patches, in two slabs and two phases, so with a seam and a frame."""
    return run_slabs(make_generator(network, bounds=Rect(32, 64, 64, 96), slab=64, phases=2))


@pytest.fixture(scope="module")
def as_trained():
    """The network as it is trained, and what it generates."""
    network = random_network(torch.float64)
    return network, in_two_slabs(network)


@every_form
def test_generation_is_the_same_in_every_form(as_trained, form):
    network, state = as_trained
    assert np.abs(in_two_slabs(FastNetwork(network, form)) - state).max() < 1e-9


@pytest.mark.parametrize(
    ("change", "chosen"),
    [
        ({}, WINOGRAD),
        ({"base": NARROWEST - 2}, FOLDED),
        ({"sections": 8}, PLAIN),
        ({"dtype": torch.bfloat16}, FOLDED),
    ],
)
def test_the_form_is_that_of_width_sections_and_precision(change, chosen):
    sizes = {"base": NARROWEST, "sections": 4, "dtype": torch.float32} | change
    dtype = sizes.pop("dtype")
    spec = NetworkSpec(patch=32, stains=("DAPI",), genes=2, embed=4, **sizes)
    network = Network(spec).requires_grad_(False).eval()
    set_precision(network, dtype)
    assert for_inference(network).form is chosen


def test_lower_precision_rounds_in_the_same_places():
    torch.manual_seed(4)
    block = ResidualBlock(24, 24, 6).eval().requires_grad_(False)
    set_precision(block, torch.bfloat16)
    x, time = torch.randn(2, 8, 8, 2, 24), torch.randn(1, 6)
    module, folded = block(x, time), FastBlock(block, FOLDED, 2)([x], time)
    set_precision(block, torch.float32)
    rounding = (module - block(x, time)).square().mean().sqrt()
    assert rounding > 0
    # What is a tie in one order of sums is none in the other: far below the rounding itself.
    assert (folded - module).square().mean().sqrt() < rounding / 10
