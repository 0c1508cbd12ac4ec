"""A network for another panel: genes in common keep their weights, by name."""

import dataclasses

import pytest
import torch
from plane_noise import predict_both

from teramind.errors import UserError
from teramind.network import Network, NetworkSpec
from teramind.network.repanel import repanel

SPEC = NetworkSpec(
    patch=32,
    sections=4,
    stains=("DAPI", "PolyT"),
    genes=4,
    base=2,
    embed=8,
    panel=("Gad1", "Slc17a7", "Th", "Cldn5"),
)


@pytest.fixture
def network():
    torch.manual_seed(3)
    return Network(SPEC).eval()


@pytest.fixture
def inputs():
    torch.manual_seed(4)
    return torch.randn(4, 4, 32, 32), torch.poisson(torch.full((4, 2, 2, 4, 4), 2.0))


def estimate(network, inputs):
    with torch.inference_mode():
        return predict_both(network, *inputs, 500)


def test_the_same_panel_changes_nothing(network):
    assert repanel(network, SPEC.panel) is network


def test_genes_in_another_order_give_the_same_estimates(network, inputs):
    order = [2, 0, 3, 1]
    other = repanel(network, tuple(SPEC.panel[i] for i in order)).double()
    state, counts = inputs = tuple(part.double() for part in inputs)
    network.double()
    for a, b in zip(
        estimate(network, inputs), estimate(other, (state, counts[..., order])), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_what_a_gene_says_and_hears_stays_when_others_come_and_go(network):
    new = repanel(network, ("Th", "Aqp4", "Gad1"))
    old, made = network.state_dict(), new.state_dict()
    reduce = "genes.attention.reduce.weight"
    torch.testing.assert_close(made[reduce][0, 2], old[reduce][2, 0])
    torch.testing.assert_close(made[reduce][2, 0], old[reduce][0, 2])
    assert (made[reduce][[0, 2], 1] == 0).all()  # nobody listens to the new gene yet
    assert made[reduce][1].abs().sum() > 0  # which has weights of its own
    middle = "middle_in.block.conv_in.weight"
    before = old[middle].shape[1] - 4
    torch.testing.assert_close(made[middle][:, :before], old[middle][:, :before])
    torch.testing.assert_close(made[middle][:, before], old[middle][:, before + 2])
    torch.testing.assert_close(made[middle][:, before + 2], old[middle][:, before])
    assert (made[middle][:, before + 1] == 0).all()


READ_GENES = ("genes.", "encoder.3.", "middle_in.", "decoder.3.")
"""Where gene features come in: the coarsest maps hold one for each gene."""


def test_weights_that_know_no_genes_are_all_kept(network):
    with torch.no_grad():
        for weights in network.parameters():
            weights.normal_()  # none is what a fresh network has, as ones and zeros are
    old, new = network.state_dict(), repanel(network, ("Th", "Aqp4")).state_dict()
    kept = [key for key, value in old.items() if new[key].shape == value.shape]
    assert {key for key in old if not key.startswith(READ_GENES)} < set(kept)
    for key in kept:
        assert torch.equal(new[key], old[key]), key


def test_a_new_gene_that_is_silent_hardly_changes_the_estimate(network, inputs):
    """It is one more token of the gene attention, and one more channel of some norms."""
    grown = repanel(network, (*SPEC.panel, "Aqp4"))
    state, counts = inputs
    before = estimate(network, inputs)[0]
    more = torch.cat([counts, torch.zeros_like(counts[..., :1])], -1)
    after = estimate(grown, (state, more))[0]
    fresh = estimate(Network(grown.spec).eval(), (state, more))[0]
    assert (after - before).std() < 0.3 * (fresh - before).std()


EIGHT = dataclasses.replace(SPEC, genes=8, panel=(*SPEC.panel, "Mbp", "Aqp4", "Sst", "Vip"))
"""With base 2, its block encoder.3.0 has as many channels in as out, hence no skip weights."""


def test_a_block_that_adds_its_input_as_it_is_goes_on_doing_so():
    torch.manual_seed(3)
    network = Network(EIGHT).eval()
    grown = repanel(network, (*EIGHT.panel, "Plp1"))
    before, after = (net.get_submodule("encoder.3.0.block") for net in (network, grown))
    maps = torch.randn(1, 4, 4, 2, 16)
    with torch.inference_mode():
        torch.testing.assert_close(
            after.skip(torch.cat([maps, torch.randn(1, 4, 4, 2, 1)], -1)), before.skip(maps)
        )


def test_a_network_of_no_room_for_trained_weights_is_refused():
    network = Network(dataclasses.replace(EIGHT, genes=9, panel=(*EIGHT.panel, "Plp1")))
    with pytest.raises(UserError, match=r"no place for encoder\.3\.0\.block\.skip\.bias"):
        repanel(network, EIGHT.panel)


def test_panels_without_common_genes_or_names_are_refused(network):
    with pytest.raises(UserError, match=r"^train\.start: has none of the genes"):
        repanel(network, ("Aqp4", "Mbp"))
    network.spec = dataclasses.replace(SPEC, panel=())
    with pytest.raises(UserError, match=r"^train\.start: carries no gene names"):
        repanel(network, ("Gad1",))
