"""Gene-gene attention: the published numbers, whatever the slabs, and what is symmetric in it."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from workflow_project import ROOT

import teramind
from teramind.attention.maps import PathwayMaps
from teramind.attention.matrices import kept_sections
from teramind.attention.pathways import Pathway, channel_names, on_panel, read_pathways
from teramind.errors import UserError
from teramind.expression.raster import Raster
from teramind.expression.tiles import import_tiles
from teramind.geometry import Rect, Windows
from teramind.network import Network, NetworkSpec, load_network


@pytest.fixture(scope="module")
def golden(goldens):
    return load_network(goldens / "z4_all_64_weights.safetensors")


@pytest.fixture(scope="module")
def published(goldens):
    return load_file(goldens / "z4_all_64_attention.safetensors")


@pytest.fixture(scope="module")
def golden_patches(shared, published, golden, tmp_path_factory):
    """Counts of the golden tile's aligned patches, by window: (patch, bins, bins, S, G)."""
    folder = tmp_path_factory.mktemp("golden") / "raster"
    panel = [f"gene_{i}" for i in range(6)]
    import_tiles(shared("goldens/chain_genes"), folder, panel=panel, genes=500)
    raster = Raster.open(folder)
    top, bottom, left, right = published["tile"].tolist()
    framed = Rect(top, left, bottom - top, right - left).grown(golden.spec.half)
    windows = Windows(sections=4, planes=raster.sections)
    planes = [
        raster.counts(sections=windows.expression(window), rect=framed)
        for window in range(len(windows))
    ]
    return [
        torch.from_numpy(plane.astype("float32"))
        .unflatten(0, (5, 4))
        .unflatten(2, (5, 4))
        .transpose(1, 2)
        .flatten(0, 1)
        for plane in planes
    ]


def random_counts(spec, patches, seed=0):
    shape = (patches, spec.bins, spec.bins, spec.sections, spec.genes)
    return torch.randint(0, 5, shape, generator=torch.Generator().manual_seed(seed)).float()


def random_network(sections, genes=5, patch=32):
    torch.manual_seed(0)
    spec = NetworkSpec(patch, sections, ("DAPI",), genes, 2, 8)
    return Network(spec).requires_grad_(False).eval()


def test_the_matrices_of_a_tile_are_the_published_ones(golden, golden_patches, published):
    found = teramind.gene_attention(golden, torch.cat(golden_patches))
    wanted = published["attention"]
    assert found.shape == wanted.shape == (4, 50, 6, 6)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_the_maps_of_a_tile_are_the_published_ones(golden, golden_patches, published):
    places = published["genes"].tolist()
    for window, counts in enumerate(golden_patches):
        maps = PathwayMaps(golden.spec, places, 5, 5, torch.arange(6))
        matrices = teramind.gene_attention(golden, counts)
        genes_first = counts.permute(0, 4, 3, 1, 2)
        for row in range(5):
            own = slice(5 * row, 5 * row + 5)
            maps.add(row, torch.arange(5), genes_first[own], matrices[:, own])
        wanted = published["maps"][2 * window : 2 * window + 2].transpose(0, 1).numpy()
        assert maps.inner().shape == wanted.shape
        assert np.abs(maps.inner() - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("sections", "kept"),
    [
        (1, [[0]]),
        (4, [[0, 1], [1, 2], [2, 3], [0, 1, 2, 3]]),
        (8, [[1, 2], [2, 3], [3, 4], [4, 5], [5, 6], list(range(8))]),
    ],
)
def test_every_drawn_section_has_a_pair_below_and_above(sections, kept):
    assert kept_sections(random_network(sections).spec) == kept


@pytest.mark.parametrize("sections", [1, 4, 8, 16])
def test_sections_that_are_not_kept_do_not_matter(sections):
    network = random_network(sections)
    counts = random_counts(network.spec, 3)
    found = teramind.gene_attention(network, counts)
    assert found.shape == (len(kept_sections(network.spec)), 3, 5, 5)
    for matrix, kept in zip(found, kept_sections(network.spec), strict=True):
        others = [z for z in range(sections) if z not in kept]
        changed = counts.clone()
        changed[:, :, :, others] += 1
        again = teramind.gene_attention(network, changed)
        place = kept_sections(network.spec).index(kept)
        assert torch.equal(again[place], matrix)


def test_rows_sum_to_one_and_the_logits_are_symmetric():
    """A = E / rowsum with E symmetric: so A_ij A_jk A_ki = A_ji A_kj A_ik, and A is not."""
    network = random_network(4).double()
    found = teramind.gene_attention(network, random_counts(network.spec, 6))
    torch.testing.assert_close(found.sum(-1), torch.ones_like(found[..., 0]))
    around = torch.einsum("kpij,kpjl,kpli->kpijl", found, found, found)
    torch.testing.assert_close(around, around.transpose(2, 3).transpose(3, 4).transpose(2, 3))
    assert (found - found.transpose(-1, -2)).abs().max() > 1e-6


def test_batches_do_not_show(monkeypatch):
    network = random_network(4).double()
    counts = random_counts(network.spec, 7)
    whole = teramind.gene_attention(network, counts)
    monkeypatch.setattr("teramind.attention.matrices.BATCH", 2)
    torch.testing.assert_close(teramind.gene_attention(network, counts), whole)


def test_counts_of_another_shape_are_refused():
    network = random_network(4)
    with pytest.raises(ValueError, match=r"\(2, 2, 2, 4, 4\), the network takes \(2, 2, 2, 4, 5\)"):
        teramind.gene_attention(network, random_counts(network.spec, 2)[..., :4])


def write_gmt(path, *lines):
    path.write_text("\n".join(["# comment", *("\t".join(line) for line in lines), ""]))
    return path


def test_pathways_are_gene_sets_in_gmt(tmp_path):
    file = write_gmt(tmp_path / "p.gmt", ("A", "", "Th", "Gad1"), ("B_2", "text", "Th", "Vip"))
    assert read_pathways(file) == [Pathway("A", ("Th", "Gad1")), Pathway("B_2", ("Th", "Vip"))]


def test_the_published_pathways_are_bundled():
    found = {p.name: p.genes for p in read_pathways(ROOT / "resources/pathways.gmt")}
    assert found == {
        "GLUT": ("Slc17a6", "Slc17a7"),
        "DOPA": ("Nr4a2", "Th"),
        "BLOD": ("Cldn5", "Aqp4"),
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([("A", "", "Th")], "line 2: pathway A has 1 genes; must be 2 to 16"),
        ([("A", "", *(f"g{i}" for i in range(17)))], "has 17 genes; must be 2 to 16"),
        ([("A", "", "Th", "Th")], "lists 'Th' twice"),
        ([("A", "", "x", "y"), ("a", "", "x", "y")], "line 3: pathway 'a' is there already"),
        ([("../A", "", "x", "y")], r"name '../A'; must be up to 64 letters"),
        ([("A x y",)], "must be up to 64 letters, digits, - and _, and stand before a tab"),
        ([], "0 pathways; must be 1 to 16"),
    ],
)
def test_a_malformed_pathways_file_says_where(tmp_path, lines, message):
    with pytest.raises(UserError, match=message) as hit:
        read_pathways(write_gmt(tmp_path / "p.gmt", *lines))
    assert "\n" not in str(hit.value)


def test_a_pathways_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "p.gmt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as a text file"):
        read_pathways(tmp_path / "p.gmt")


def test_genes_are_found_by_name_synonym_and_case():
    panel = ("Gad1", "Slc17a7", "Th", "Aqp4")
    ((pathway, places),) = on_panel(
        [Pathway("A", ("VGLUT1", "TH", "Gad1"))], panel, {"VGLUT1": "Slc17a7"}
    )
    assert (pathway.genes, places) == (("Slc17a7", "Th", "Gad1"), [1, 2, 0])


def test_unknown_genes_are_all_named_with_what_is_spelt_like_them():
    panel = ("Slc17a6", "Slc17a7", "Th")
    pathways = [Pathway("A", ("Slc17a8", "Th")), Pathway("B", ("Qqq", "Th"))]
    with pytest.raises(UserError, match=r"panel of 3 genes: Slc17a8 \(A, near: Slc17a") as hit:
        on_panel(pathways, panel)
    assert str(hit.value).endswith("; Qqq (B)")


def test_one_gene_under_two_names_is_refused():
    with pytest.raises(UserError, match="pathway A: Th, TH-old name a gene twice"):
        on_panel([Pathway("A", ("Th", "TH-old"))], ("Th", "Gad1"), {"TH-old": "Th"})


def test_channels_are_named_by_kind_and_gene():
    pair = Pathway("A", ("x", "y"))
    assert channel_names(pair, 1) == ("all x", "all y", "counts x", "counts y")
    assert channel_names(pair, 4)[:3] == ("down x", "down y", "up x")
