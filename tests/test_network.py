"""The network computes what the published one does, patch by patch."""

import itertools

import pytest
import torch
from plane_noise import predict_both, predict_noise
from safetensors.torch import load_file, save_file
from torch import nn

from teramind.network import Network, NetworkSpec, load_network
from teramind.network.blocks import SectionConv
from teramind.network.published import published_modules

SMALL = [
    (sections, patch, stains, genes, base, embed)
    for (sections, patch), (stains, genes, base, embed) in zip(
        itertools.product((1, 4, 8, 16), (32, 64)),
        itertools.cycle([(2, 5, 2, 8), (1, 3, 2, 6), (2, 1, 4, 16)]),
        strict=False,
    )
]
SIZES = [*SMALL, (4, 128, 1, 3, 2, 8), (4, 96, 2, 4, 2, 8)]


@pytest.fixture(scope="module")
def golden(goldens):
    return load_network(goldens / "z4_all_64_weights.safetensors")


@pytest.fixture(scope="module")
def io(goldens):
    tensors = load_file(goldens / "z4_all_64_io.safetensors")
    return {name: value.float() for name, value in tensors.items()}


def assert_relative(found, wanted, tolerance=1e-5):
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= tolerance * wanted.abs().max()


def random_network(sections, patch, stains, genes, base, embed):
    """A network whose every weight is random, the norms' too."""
    torch.manual_seed(1)
    names = ("DAPI", "PolyT")[:stains]
    network = Network(NetworkSpec(patch, sections, names, genes, base, embed))
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network.requires_grad_(False).eval()


def random_plane(spec, patches):
    """State and counts of so many patches."""
    random = torch.Generator().manual_seed(2)
    state = torch.randn(patches, spec.channels, spec.patch, spec.patch, generator=random)
    shape = (patches, spec.bins, spec.bins, spec.sections, spec.genes)
    return state, torch.randint(0, 4, shape, generator=random).float()


def published_state(network):
    """The network's weights under the published names and in the published shapes."""
    theirs = published_modules(network.spec)
    state = {}
    for key, value in network.state_dict().items():
        module, _, parameter = key.rpartition(".")
        name = f"{theirs[module]}.{parameter}"
        across_maps = name.endswith(("in_layers.0.weight", "out_layers.0.weight", "out.0.weight"))
        state[name] = value.view(1, -1, 1, 1) if across_maps else value
    return state


def test_one_pass_gives_the_published_numbers(golden, io):
    shifted, aligned = predict_both(golden, io["x"], io["counts"], int(io["t"]))
    assert_relative(shifted, io["pred_shifted"])
    assert_relative(aligned[:2], io["pred_aligned"])


def test_gene_features_are_the_published_ones(golden, io):
    features = [level.permute(0, 4, 3, 1, 2) for level in golden.genes(io["counts"])]
    assert_relative(features[3], io["gene_features_0"])  # (patch, channel, z, y, x)
    assert_relative(features[0][:1], io["gene_features_3_first"])


def test_a_published_checkpoint_loads_from_its_folder(shared):
    spec = load_network(shared("goldens/638850_64_6_all_4_ours")).spec
    assert (spec.patch, spec.genes, spec.stains, spec.sections) == (64, 6, ("DAPI", "PolyT"), 4)
    assert (spec.base, spec.embed) == (4, 32)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size_predicts_the_same_under_published_names(size, tmp_path):
    network = random_network(*size)
    spec = network.spec
    state, counts = random_plane(spec, 4)
    shifted = predict_noise(network, state, counts, 400)
    assert shifted.shape == (1, spec.channels, spec.patch, spec.patch)
    save_file(published_state(network), tmp_path / "bare.safetensors")
    again = load_network(tmp_path / "bare.safetensors")
    assert again.spec == NetworkSpec(
        **{**spec.to_dict(), "stains": spec.stains if len(spec.stains) == 2 else ("stain",)}
    )
    assert torch.equal(predict_noise(again, state, counts, 400), shifted)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_published_names_cover_every_module_once(size):
    network = random_network(*size)
    names = published_modules(network.spec)
    assert len(set(names.values())) == len(names)
    holders = {key.rpartition(".")[0] for key in network.state_dict()}
    unskipped = {name for name in names if name.endswith(".skip")}  # identities hold no weights
    assert set(names) - unskipped <= holders <= set(names)


def test_published_names_are_those_of_the_golden_weights(golden, goldens):
    published = load_file(goldens / "z4_all_64_weights.safetensors")
    ours = published_state(golden)
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in published.items()}


@pytest.mark.parametrize("z", [1, 2, 3, 4])
@pytest.mark.parametrize(("depth", "edge"), [(3, 3), (1, 3), (1, 1)])
def test_a_section_convolution_is_a_zero_padded_3d_convolution(z, depth, edge):
    torch.manual_seed(z)
    ours = SectionConv(3, 5, depth=depth, edge=edge).double()
    padding = (depth // 2, edge // 2, edge // 2)
    plain = nn.Conv3d(3, 5, (depth, edge, edge), padding=padding, dtype=torch.float64)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, 8, z, 3, dtype=torch.float64)
    expected = plain(x.permute(0, 4, 3, 1, 2)).permute(0, 3, 4, 2, 1)
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-12)


def test_a_plane_is_the_sum_of_its_squares_of_four(tiny_network):
    state, counts = random_plane(tiny_network.spec, 12)
    whole = predict_noise(tiny_network, state, counts, 500, rows=3)
    for row, col in itertools.product(range(2), range(3)):
        four = [4 * row + col, 4 * row + col + 1, 4 * row + col + 4, 4 * row + col + 5]
        alone = predict_noise(tiny_network, state[four], counts[four], 500)
        assert_relative(alone[0], whole[3 * row + col], 1e-4)


def test_an_aligned_patch_touches_only_the_shifted_patches_over_it(tiny_network):
    state, counts = random_plane(tiny_network.spec, 16)
    before = predict_noise(tiny_network, state, counts, 500)
    for row, col in [(1, 2), (0, 0), (3, 1)]:
        over = {
            3 * y + x
            for y, x in itertools.product((row - 1, row), (col - 1, col))
            if 0 <= y < 3 and 0 <= x < 3
        }
        for changed in ("state", "counts"):
            planes = {"state": state.clone(), "counts": counts.clone()}
            planes[changed][4 * row + col] += 1
            after = predict_noise(tiny_network, **planes, t=500)
            differing = (after != before).flatten(1).any(1).nonzero().flatten()
            assert set(differing.tolist()) == over


@pytest.mark.parametrize(("predict", "passes"), [(predict_noise, [1]), (predict_both, [1, 4])])
def test_the_aligned_decoder_runs_only_when_asked_for(tiny_network, monkeypatch, predict, passes):
    decode, seen = tiny_network.decode, []

    def counted(encoded, time):
        seen.append(len(encoded.middle))
        return decode(encoded, time)

    monkeypatch.setattr(tiny_network, "decode", counted)
    predict(tiny_network, *random_plane(tiny_network.spec, 4), 0)
    assert seen == passes


def test_attention_of_genes_to_genes_sums_to_one(golden, io):
    tokens = io["counts"].permute(0, 4, 3, 1, 2).flatten(2)
    matrix = golden.genes.attention.matrix(tokens)
    assert matrix.shape == (9, 6, 6)
    assert (matrix >= 0).all()
    torch.testing.assert_close(matrix.sum(-1), torch.ones(9, 6))
