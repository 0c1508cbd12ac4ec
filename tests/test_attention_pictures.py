"""What is plotted of a pathway is what the numbers in its volume say, place by place."""

import numpy as np
import pytest

from teramind.attention.joint import CELLS, STEP, read_joint
from teramind.attention.pathways import Pathway, channel_names, map_kinds
from teramind.attention.pictures import display_limits, read_section
from teramind.evaluate.structure import smooth
from teramind.volume import VolumeLayout, create_volume, write_slab

SHAPE = (2, 70, 50)
"""Sections and bins; neither edge is a multiple of a place."""

GENES = ("up", "all", "Th", "absent")
"""Two are called as kinds of maps are; the last has no molecules."""

KINDS = map_kinds(4)
NETWORK_GENES = 30


def random_maps():
    """Kind -> values (gene, z, y, x): sparse counts, and attention that follows them."""
    rng = np.random.default_rng(5)
    there = rng.random((len(GENES), *SHAPE)) < 0.04
    there[-1] = False
    counts = there * rng.uniform(0.5, 6, there.shape)
    maps = {
        kind: counts.sum(0) * rng.uniform(0, strength, there.shape)
        for kind, strength in (("down", 0.1), ("up", 0.2), ("all", 0.3))
    }
    return {kind: values.astype(np.float32) for kind, values in (maps | {"counts": counts}).items()}


MAPS = random_maps()


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    pathway, path = Pathway("A", GENES), tmp_path_factory.mktemp("maps") / "A.zarr"
    names = channel_names(pathway, 4)
    create_volume(
        path,
        VolumeLayout(
            shape=(len(names), *SHAPE),
            slab=80,
            pixel_size_um=8.0,
            section_spacing_um=10.0,
            stains=names,
            attributes={"pathway": "A", "genes": list(GENES), "kinds": list(KINDS)},
            dtype="float32",
            colours=pathway.colours * len(KINDS),
            together=len(names),
        ),
    )
    voxels = np.concatenate([MAPS[kind] for kind in KINDS])
    write_slab(path, voxels=voxels, z=0, y=0, x=0)
    return path


def means(values, z, edge):
    """Means (gene, row, column) of squares of `edge` bins, one by one."""
    _, height, width = SHAPE
    rows = [
        [values[:, z, y : y + edge, x : x + edge].mean((1, 2)) for x in range(0, width, edge)]
        for y in range(0, height, edge)
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def places(gene):
    """Expression and attention of a gene at every place of 4 x 4 bins where two genes are."""
    x, y = [], []
    for z in range(SHAPE[0]):
        counts, whole = (means(MAPS[kind], z, 4) for kind in ("counts", "all"))
        there = (counts > 0).sum(0) >= 2
        x += np.log2(counts[gene][there] + 1).tolist()
        y += np.log2(whole.sum(0)[there] * NETWORK_GENES + 1).tolist()
    return np.array(x), np.array(y)


@pytest.mark.parametrize("gene", range(3))
def test_a_regression_is_that_of_all_places(volume, gene):
    found = read_joint(volume, NETWORK_GENES).regressions()[GENES[gene]]
    x, y = places(gene)
    slope, intercept = np.polyfit(x, y, 1)
    assert found["places"] == len(x) > 100
    assert found["r"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-5)
    assert found["slope"] == pytest.approx(slope, abs=1e-5)
    assert found["intercept"] == pytest.approx(intercept, abs=1e-5)
    assert found["r_low"] < found["r"] < found["r_high"]
    assert found["slope_low"] < found["slope"] < found["slope_high"]


def test_a_gene_that_is_nowhere_has_no_regression(volume):
    found = read_joint(volume, NETWORK_GENES).regressions()["absent"]
    assert found["places"] == len(places(0)[0])
    assert found["r"] is found["slope"] is found["intercept"] is None


@pytest.mark.parametrize("band", [16, 128])
def test_densities_count_the_places_however_many_are_read_at_a_time(volume, monkeypatch, band):
    monkeypatch.setattr("teramind.attention.coarse.BAND", band)
    joint = read_joint(volume, NETWORK_GENES)
    ends = [np.arange(cells + 1) * STEP for cells in CELLS]
    for gene in range(len(GENES)):
        np.testing.assert_array_equal(
            joint.densities[gene], np.histogram2d(*places(gene), bins=ends)[0]
        )


@pytest.mark.parametrize(
    ("longest", "factor", "place"), [(1200, 2, 4), (24, 3, 3), (18, 4, 4), (12, 6, 6)]
)
def test_a_section_shows_attention_where_two_genes_are(volume, monkeypatch, longest, factor, place):
    """Places are 4 bins, or what whole pixels of `factor` bins make of them."""
    monkeypatch.setattr("teramind.attention.pictures.LONGEST", longest)
    for z in range(SHAPE[0]):
        section = read_section(volume, z, NETWORK_GENES)
        counts = means(MAPS["counts"], z, factor)
        tissue = smooth((counts > 0).any(0), 4 / factor) > 0.02
        meeting = (means(MAPS["counts"], z, place) > 0).sum(0) >= 2
        rows, cols = (np.arange(size) * factor // place for size in counts.shape[1:])
        there = meeting[np.ix_(rows, cols)]
        assert not there.all() and there.any()
        assert section.pixel_um == 8 * factor
        np.testing.assert_array_equal(section.tissue, tissue)
        for gene, plane in enumerate(section.expression):
            wanted = smooth(np.log2(counts[gene] + 1), 4 / factor)
            np.testing.assert_allclose(plane, wanted, atol=1e-5)
        for kind in ("down", "up", "all"):
            level = np.log2(means(MAPS[kind], z, factor).sum(0) * NETWORK_GENES + 1)
            wanted = smooth(level * there, 4 / factor) * tissue
            np.testing.assert_allclose(section.attention[kind], wanted, atol=1e-5)


def test_limits_are_those_of_the_brightest_section_by_gene_and_by_kind(volume):
    found = display_limits(volume, NETWORK_GENES)
    sections = [read_section(volume, z, NETWORK_GENES) for z in range(SHAPE[0])]
    planes = {f"counts {gene}": [s.expression[g] for s in sections] for g, gene in enumerate(GENES)}
    planes |= {kind: [s.attention[kind] for s in sections] for kind in ("down", "up", "all")}
    assert set(found) == set(planes)
    for name, of_sections in planes.items():
        wanted = max(np.quantile(plane, 0.998) for plane in of_sections)
        assert found[name] == pytest.approx(wanted or 1, abs=1e-3)
    assert found["counts absent"] == 1
