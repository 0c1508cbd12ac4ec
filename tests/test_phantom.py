"""The phantom: seeded tissue whose stains, molecules and cells tell one story."""

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree

from teramind.errors import UserError
from teramind.geometry import BIN
from teramind.phantom import PANEL, Phantom, make_phantom, write_phantom
from teramind.phantom.catalogue import CELL_TYPES
from teramind.phantom.tissue import Tissue
from teramind.phantom.write import FILES

PANELS = Path(__file__).parents[1] / "resources" / "panels"
SHAPE = (512, 768)
SIZE = {"height": SHAPE[0], "width": SHAPE[1], "sections": 3}


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(**SIZE, seed=4)


@pytest.fixture(scope="module")
def wide() -> Phantom:
    """A field large enough for the whole plan."""
    return make_phantom(height=1280, width=1280, sections=1, seed=7)


def shown(phantom: Phantom, section: int, reach_um: float) -> pd.DataFrame:
    """Cells centred in the field and within `reach_um` of a section's plane."""
    cells = phantom.cells
    away = (cells.z_um - section * phantom.section_spacing_um).abs()
    y, x = (
        cells[axis].between(0, size * phantom.pixel_size_um, inclusive="left")
        for axis, size in zip(("y_um", "x_um"), phantom.regions.shape, strict=True)
    )
    return cells[y & x & (away < reach_um)]


def discs(phantom: Phantom, cells: pd.DataFrame, scale: float) -> np.ndarray:
    """Pixels (y, x) within `scale` nucleus radii of a cell's centre."""
    pixel = phantom.pixel_size_um
    y, x = ((np.indices(phantom.images.shape[2:]) + 0.5) * pixel).astype("f4")
    mask = np.zeros(y.shape, bool)
    for cell in cells.itertuples():
        part = np.s_[
            max(0, int(cell.y_um / pixel) - 40) : int(cell.y_um / pixel) + 40,
            max(0, int(cell.x_um / pixel) - 40) : int(cell.x_um / pixel) + 40,
        ]
        away = np.hypot(y[part] - cell.y_um, x[part] - cell.x_um)
        mask[part] |= away < scale * cell.nucleus_radius_um
    return mask


def binned(phantom: Phantom, section: int, size: int = BIN) -> np.ndarray:
    """Molecules of one section, counted in squares of `size` pixels."""
    part = phantom.molecules[phantom.molecules.section == section]
    edges = [np.arange(n // size + 1) * size * phantom.pixel_size_um for n in SHAPE]
    return np.histogram2d(part.y_um, part.x_um, bins=edges)[0]


def bin_mean(image: np.ndarray) -> np.ndarray:
    """Mean of an image (y, x) in each bin."""
    rows, columns = (size // BIN for size in image.shape)
    return image.reshape(rows, BIN, columns, BIN).mean((1, 3))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def molecules_at(phantom: Phantom, cells: pd.DataFrame) -> np.ndarray:
    """Which molecules of section 0 lie on one of these nuclei (bool, in table order)."""
    mask = discs(phantom, cells, scale=1.0)
    here = phantom.molecules[phantom.molecules.section == 0]
    return mask[
        (here.y_um // phantom.pixel_size_um).astype(int),
        (here.x_um // phantom.pixel_size_um).astype(int),
    ]


def test_panel_is_a_part_of_the_published_panel_in_its_order():
    published = (PANELS / "mouse_500.txt").read_text().split()
    bundled = (PANELS / "phantom_32.txt").read_text().split()
    assert len(set(PANEL)) == 32
    assert list(PANEL) == bundled == [gene for gene in published if gene in PANEL]


@settings(max_examples=6, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    sections=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
@example(height=16, width=16, sections=1, seed=644)  # no cell falls here
@example(height=1, width=1, sections=1, seed=0)
def test_any_size_and_seed_gives_aligned_repeatable_arrays(height, width, sections, seed):
    size = {"height": height, "width": width, "sections": sections, "seed": seed}
    one, two = make_phantom(**size), make_phantom(**size)
    assert one.images.shape == (2, sections, height, width)
    assert one.regions.shape == (height, width)
    assert one.molecules.x_um.between(0, width * 0.6, inclusive="left").all()
    assert one.molecules.y_um.between(0, height * 0.6, inclusive="left").all()
    assert one.molecules.section.between(0, sections - 1).all()
    assert np.array_equal(one.images, two.images)
    assert np.array_equal(one.regions, two.regions)
    assert set(np.unique(one.nuclei)) - {0} == set(one.cells.id)
    pd.testing.assert_frame_equal(one.molecules, two.molecules)
    pd.testing.assert_frame_equal(one.cells, two.cells)


def test_another_seed_is_another_tissue(phantom):
    other = make_phantom(**{**SIZE, "sections": 1}, seed=5)
    assert correlation(phantom.images[0, 0], other.images[0, 0]) < 0.2
    assert (phantom.regions != other.regions).mean() > 0.3


def test_nuclei_are_bright_and_the_rest_is_dark(phantom):
    dapi = phantom.images[0, 1]
    inside = dapi[discs(phantom, shown(phantom, 1, 3.0), scale=0.5)]
    far = ~discs(phantom, shown(phantom, 1, 10.0), scale=4.0)[30:-30, 30:-30]
    assert 90 < inside.mean() < 220
    assert 5 < dapi[30:-30, 30:-30][far].mean() < 15


def test_somata_reach_beyond_their_nuclei_in_polyt(wide):
    neurons = shown(wide, 0, 3.0).query("type == 'L5 pyramidal'")
    ring = discs(wide, neurons, scale=1.4) & ~discs(wide, shown(wide, 0, 10.0), scale=1.2)
    assert wide.images[1, 0][ring].mean() > 2 * np.median(wide.images[1, 0])
    assert wide.images[0, 0][ring].mean() < wide.images[1, 0][ring].mean() / 2


def test_molecules_show_where_the_nuclei_are(phantom):
    counts = binned(phantom, section=1)
    nuclei = bin_mean(discs(phantom, shown(phantom, 1, 6.0), scale=1.0))
    assert correlation(counts, nuclei) > 0.6
    assert correlation(counts, bin_mean(phantom.images[0, 1])) > 0.6
    assert correlation(counts, np.roll(nuclei, 8, axis=1)) < 0.3


def test_three_quarters_of_a_cells_molecules_lie_in_its_soma(wide):
    cells = shown(wide, 0, 4.0).query("type == 'Vip interneuron'")
    vip = wide.molecules[wide.molecules.gene == "Vip"]
    at = tuple((vip[axis] // wide.pixel_size_um).astype(int) for axis in ("y_um", "x_um"))
    soma, halo = (discs(wide, cells, scale)[at].sum() for scale in (1.3, 2.7))
    assert halo > 200
    assert 0.65 < soma / halo < 0.85


@pytest.mark.parametrize(
    ("kind", "markers"),
    [
        ("L4 stellate", ["Rorb"]),
        ("L6 pyramidal", ["Hs3st4"]),
        ("granule", ["C1ql3", "Calb1"]),
        ("habenular", ["Nr4a2"]),
        ("dopaminergic", ["Th", "Nr4a2", "Slc6a3"]),
        ("Vip interneuron", ["Vip"]),
        ("astrocyte", ["Aqp4", "Gja1", "Slc1a3"]),
        ("oligodendrocyte", ["Sox10", "Mog", "Opalin"]),
        ("endothelial", ["Cldn5", "Fli1", "Adgrf5"]),
        ("microglia", ["Ctss"]),
    ],
)
def test_markers_are_enriched_on_their_cells(wide, kind, markers):
    cells = shown(wide, 0, 4.0)
    on_type = molecules_at(wide, cells[cells.type == kind])
    is_marker = wide.molecules.gene.isin(markers).to_numpy()
    assert is_marker[on_type].mean() > 4 * is_marker[~on_type].mean()


def test_every_type_expresses_genes_of_the_panel_and_every_gene_has_a_type():
    used = {gene for kind in CELL_TYPES.values() for gene in kind.genes}
    assert used == set(PANEL)


def test_every_region_occurs_and_cells_stand_in_the_region_they_name(wide):
    assert set(np.unique(wide.regions)) == set(range(len(wide.region_names)))
    cells = shown(wide, 0, 1.0)
    at = ((cells[axis] / wide.pixel_size_um).astype(int) for axis in ("y_um", "x_um"))
    named = np.array(wide.region_names)[wide.regions[tuple(at)]]
    assert (named == cells.region.to_numpy()).mean() > 0.95


def test_small_fields_show_several_regions():
    for seed in range(3):
        labels = make_phantom(height=512, width=768, sections=1, seed=seed).regions
        assert (np.bincount(labels.ravel()) > 0.02 * labels.size).sum() >= 4


def test_the_ventricle_is_empty_and_dark(wide):
    ventricle = ndimage.binary_erosion(wide.regions == 0, iterations=15)
    assert ventricle.sum() > 1000
    assert not (wide.cells.region == "ventricle").any()
    assert wide.images[:, 0][:, ventricle].mean() < 15
    molecules = wide.molecules
    at = tuple((molecules[axis] // wide.pixel_size_um).astype(int) for axis in ("y_um", "x_um"))
    per_pixel = len(molecules) / wide.regions.size
    assert ventricle[at].sum() / ventricle.sum() < 0.02 * per_pixel


def area_of(phantom, *names):
    return np.isin(phantom.regions, [phantom.region_names.index(name) for name in names])


def test_the_cell_layers_are_the_densest(wide):
    area = np.bincount(wide.regions.ravel(), minlength=len(wide.region_names))
    density = wide.cells.region.value_counts().reindex(wide.region_names) / area
    dense = ["granule layer", "CA1 pyramidal layer", "ependyma"]
    assert density[dense].min() > density.drop([*dense, "CA3 pyramidal layer"]).max()
    assert density["L1"] < density["L2/3"] < density["L4"]


def test_layers_follow_each_other_from_the_pia_inwards(wide):
    tissue = Tissue(wide.seed, tuple(size * wide.pixel_size_um for size in wide.regions.shape))
    y, x = ((axis + 0.5) * wide.pixel_size_um for axis in np.ogrid[:1280, :1280])
    depth = tissue.depth(x, y, np.asarray(0.0))
    order = ["outside", "pia", "L1", "L2/3", "L4", "L5", "L6", "thalamus"]
    medians = [np.median(depth[area_of(wide, name)]) for name in order]
    assert medians == sorted(medians)


def test_the_wall_of_the_ventricles_is_ependyma_alone(wide):
    rim = ndimage.binary_dilation(area_of(wide, "ventricle"), iterations=3)
    rim &= ~area_of(wide, "ventricle")
    assert area_of(wide, "ependyma")[rim].mean() > 0.99
    assert (wide.cells.type[wide.cells.region == "ependyma"] == "ependymal").mean() > 0.8


@given(height=st.integers(600, 20000), width=st.integers(600, 20000), seed=st.integers(0, 999))
@settings(max_examples=10, deadline=None)
def test_the_plan_covers_a_field_of_any_size(height, width, seed):
    tissue = Tissue(seed, (height, width))
    y, x = np.linspace(0, height, 200)[:, None], np.linspace(0, width, 200)[None]
    labels = tissue.labels(x, y, np.asarray(0.0))
    assert (np.bincount(labels.ravel()) > 0.005 * labels.size).sum() >= 6


def test_each_nucleus_is_labelled_where_it_shines(phantom):
    dapi, nuclei = phantom.images[0, 1], phantom.nuclei[1]
    assert dapi[nuclei > 0].mean() > 5 * dapi[nuclei == 0].mean()
    cells = shown(phantom, 1, 2.0)
    at = tuple((cells[a] / phantom.pixel_size_um).astype(int) for a in ("y_um", "x_um"))
    assert (nuclei[at] == cells.id).mean() > 0.95
    area = np.bincount(nuclei.ravel())[cells.id] * phantom.pixel_size_um**2
    circle = np.pi * cells.nucleus_radius_um**2
    assert 0.85 < np.median(area / circle) < 1.15


def test_some_neurons_have_a_glial_cell_touching_them(wide):
    cells = wide.cells[wide.cells.region == "L5"]
    glia = cells.type.isin(["oligodendrocyte", "microglia", "astrocyte"]).to_numpy()
    neurons = (cells.type == "L5 pyramidal").to_numpy()
    at = cells[["x_um", "y_um", "z_um"]].to_numpy()
    away, which = cKDTree(at[glia]).query(at[neurons])
    radius = cells.nucleus_radius_um.to_numpy()
    touching = away < 1.2 * (radius[neurons] + radius[glia][which])
    assert 0.01 < touching.mean() < 0.3


def test_nuclei_keep_apart(wide):
    cells = wide.cells
    tree = cKDTree(cells[["x_um", "y_um", "z_um"]])
    distance, other = tree.query(cells[["x_um", "y_um", "z_um"]], k=2)
    radius = cells.nucleus_radius_um.to_numpy()
    assert (distance[:, 1] > 0.75 * (radius + radius[other[:, 1]])).all()


def test_sections_follow_each_other():
    stack = make_phantom(height=SHAPE[0], width=SHAPE[1], sections=4, seed=4)
    counts = [ndimage.gaussian_filter(binned(stack, section), 4) for section in range(4)]
    for section in range(3):
        assert correlation(counts[section], counts[section + 1]) > 0.6
    ids = [set(np.unique(nuclei)) - {0} for nuclei in stack.nuclei]
    assert all(len(a & b) > 0.15 * len(a) for a, b in pairwise(ids))
    assert not ids[0] & ids[2]


def test_written_files_read_back_equal(phantom, tmp_path):
    write_phantom(tmp_path / "out", phantom)
    folder = tmp_path / "out"
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert np.array_equal(tifffile.imread(folder / "nuclei.ome.tif"), phantom.nuclei)
    assert np.array_equal(tifffile.imread(folder / "regions.tif"), phantom.regions)
    assert tuple(pd.read_csv(folder / "regions.csv").name) == phantom.region_names
    molecules = pd.read_parquet(folder / "molecules.parquet")
    pd.testing.assert_frame_equal(molecules, phantom.molecules)
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "cells.parquet"), phantom.cells)
    assert (folder / "panel.txt").read_text().split() == list(PANEL)


def test_molecule_table_is_compact(phantom, tmp_path):
    write_phantom(tmp_path, phantom)
    file = pq.ParquetFile(tmp_path / "molecules.parquet")
    types = {field.name: str(field.type) for field in file.schema_arrow}
    assert types.pop("gene").startswith("dictionary<values=string, indices=int8")
    assert types == {"x_um": "float", "y_um": "float", "section": "int16"}
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_written_image_is_tiled_ome_with_sizes_in_um(phantom, tmp_path):
    write_phantom(tmp_path, phantom)
    with tifffile.TiffFile(tmp_path / "images.ome.tif") as file:
        assert file.series[0].axes == "CZYX"
        assert np.array_equal(file.asarray(), phantom.images)
        assert file.pages[0].tile == (256, 256)
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert [pixels[f"PhysicalSize{axis}"] for axis in "XYZ"] == [0.6, 0.6, 10.0]
    assert {pixels[f"PhysicalSize{axis}Unit"] for axis in "XYZ"} == {"µm"}
    assert [channel["Name"] for channel in pixels["Channel"]] == ["DAPI", "PolyT"]


@pytest.mark.parametrize(
    "wrong", [{"height": 0}, {"sections": -1}, {"pixel_size_um": 0.0}, {"seed": -1}]
)
def test_impossible_sizes_are_user_errors(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        make_phantom(**{**SIZE, **wrong})


@pytest.mark.parametrize("wrong", [{"height": 10**12}, {"width": 10**30}, {"pixel_size_um": 1e300}])
def test_sizes_that_no_memory_holds_are_user_errors(wrong):
    with pytest.raises(UserError, match="do not fit into memory"):
        make_phantom(**{**SIZE, **wrong})


def test_memory_that_runs_out_is_a_user_error(monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("teramind.phantom.make.render_section", full)
    with pytest.raises(UserError, match=r"2 sections of 20 x 30 pixels of 0\.6 um do"):
        make_phantom(height=20, width=30, sections=2)


def test_memory_is_the_result_and_copies_of_one_section():
    size = {"height": 192, "width": 192, "sections": 16, "pixel_size_um": 0.2}
    tracemalloc.start()
    made = make_phantom(**size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    copies = (peak - made.images.nbytes - made.nuclei.nbytes) / (4 * 192 * 192)
    assert copies < 16
