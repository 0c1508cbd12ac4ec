"""Attention from molecules to tables and pictures, run by the real Snakemake on a tiny brain."""

import json

import anndata
import imagecodecs
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
import yaozarrs
import zarr
from ome_zarr_models.v05.image import Image
from workflow_project import PANEL, SIZE, Project, planned

import teramind
from teramind.attention.slab import attention_slab
from teramind.attention.volumes import create_pathway_volumes
from teramind.expression.raster import Raster
from teramind.geometry import Rect, Slab
from teramind.network import load_network
from teramind.volume import read_volume, verify_shards, volume_layout

GMT = "PAIR\ttwo genes\tth\tVGLUT1\nTRIO\tall\tGad1\tSlc17a7\tTh\n"
ATTENTION = {"pathways": "pathways.gmt", "regions": "regions.tif", "permutations": 99}


def make_project(folder, **changes):
    project = Project(
        folder,
        **{
            "attention": ATTENTION,
            "expression__synonyms": "synonyms.tsv",
            "generate__slab": 128,
        }
        | changes,
    )
    (folder / "pathways.gmt").write_text(GMT)
    (folder / "synonyms.tsv").write_text("VGLUT1\tSlc17a7\n")
    labels = np.zeros(SIZE, np.uint8)
    labels[:, :96], labels[:, 96:] = 3, 7
    labels[:64, 160:] = 0
    tifffile.imwrite(folder / "regions.tif", labels)
    return project


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project whose attention was computed; tests leave it as it is."""
    project = make_project(tmp_path_factory.mktemp("attention"))
    project.printed = project.run("attention_all")
    return project


def patches(project, sections):
    """Counts (patch row, patch column, bins, bins, S, G) of the patches centred in the plane."""
    raster = Raster.open(project.results / "expression/raster.zarr")
    rect = Rect(-16, -16, *SIZE)
    plane = raster.counts(sections=sections, rect=rect).astype(np.float32)
    split = plane.reshape(SIZE[0] // 32, 2, SIZE[1] // 32, 2, *plane.shape[2:])
    return torch.from_numpy(split.swapaxes(1, 2))


def test_images_are_not_needed(finished, tmp_path):
    jobs = planned(finished.printed)
    assert jobs["attention"] == 2
    assert not [name for name in jobs if name.startswith("generate")]
    assert not finished.leftovers()
    assert "Nothing to be done" in finished.copy(tmp_path).run("attention_all")


@pytest.mark.parametrize(("pathway", "genes"), [("PAIR", PANEL[:0:-1]), ("TRIO", PANEL)])
def test_a_pathway_is_a_valid_volume_with_named_channels(finished, pathway, genes):
    path = finished.results / f"attention/{pathway}.zarr"
    yaozarrs.validate_zarr_store(str(path))
    image = Image.from_zarr(zarr.open_group(path, mode="r"))
    labels = [channel["label"] for channel in image.ome_attributes.omero["channels"]]
    kinds = ("down", "up", "all", "counts")
    assert labels == [f"{kind} {gene}" for kind in kinds for gene in genes]
    assert read_volume(path).shape == (len(labels), 2, SIZE[0] // 16, SIZE[1] // 16)
    assert volume_layout(path).pixel_size_um == 16 * 0.5
    for receipt in (finished.results / "attention/receipts").iterdir():
        assert verify_shards(path, json.loads(receipt.read_text())["shards"][pathway]) == []


def test_a_damaged_map_is_found_and_made_again(finished, tmp_path):
    project = finished.copy(tmp_path / "copy")
    records = project.files("attention/receipts/*", "attention/pyramid/*")
    before = project.files("attention/**/*.zarr/**/*", "attention/receipts/*")
    shard = next(p for p in project.results.glob("attention/TRIO.zarr/0/c/**/*") if p.is_file())
    shard.write_bytes(shard.read_bytes()[:-1])
    status, printed = project.attempt("verify")
    assert status != 0
    assert f"{shard.relative_to(project.folder)} differs" in printed
    assert planned(project.run("-n", "attention_all"))["attention"] == 1
    project.run(*(f"out/{name}" for name in records))
    assert project.files("attention/**/*.zarr/**/*", "attention/receipts/*") == before


def test_the_maps_are_attention_times_counts(finished):
    network = load_network(finished.folder / "network.safetensors")
    voxels = read_volume(finished.results / "attention/PAIR.zarr")
    counts = patches(finished, range(-1, 3))
    rows, cols = counts.shape[:2]
    matrices = teramind.gene_attention(network, counts.flatten(0, 1)).unflatten(1, (rows, cols))
    pair = [2, 1]
    for z in range(2):
        molecules = counts[..., 1 + z, pair]  # (row, column, bin, bin, gene)
        expected = [
            torch.einsum("yxgh,yxabh->gyaxb", matrices[k][..., pair, :][..., pair], molecules)
            for k in (z, z + 1, 3)
        ]
        expected.append(molecules.permute(4, 0, 2, 1, 3))
        planes = torch.stack(expected).reshape(8, 2 * rows, 2 * cols)[:, 1:, 1:]
        np.testing.assert_allclose(voxels[:, z, :-1, :-1], planes, rtol=1e-5, atol=1e-6)


def test_how_the_plane_is_cut_does_not_show(finished, tmp_path):
    config = make_project(tmp_path, generate__slab=192, generate__phases=1).config
    config = config.model_copy(
        update={
            "attention": config.attention.model_copy(
                update={name: str(tmp_path / ATTENTION[name]) for name in ("pathways", "regions")}
            ),
            "expression": config.expression.model_copy(
                update={"synonyms": str(tmp_path / "synonyms.tsv")}
            ),
        }
    )
    raster = finished.results / "expression/raster.zarr"
    checkpoint = finished.folder / "network.safetensors"
    create_pathway_volumes(config, tmp_path, raster=raster, checkpoint=checkpoint)
    receipt = attention_slab(
        config,
        Slab(0, 0, 0),
        checkpoint=checkpoint,
        raster=raster,
        folder=tmp_path,
        sums=tmp_path / "sums.npy",
    )
    for name in ("PAIR", "TRIO"):
        folders = tmp_path, finished.results / "attention"
        whole, cut = (read_volume(folder / f"{name}.zarr") for folder in folders)
        np.testing.assert_allclose(whole, cut, rtol=1e-5)
        assert whole.any()
    assert units([receipt], [tmp_path / "sums.npy"]) == units(
        *zip(
            *(
                (json.loads(path.read_text()), finished.results / f"attention/sums/{path.stem}.npy")
                for path in (finished.results / "attention/receipts").iterdir()
            ),
            strict=True,
        )
    )


def units(receipts, sums):
    """Patches and (rounded) mass of every unit, over all slabs."""
    found = {}
    for receipt, path in zip(receipts, sums, strict=True):
        for entry, matrix in zip(receipt["entries"], np.load(path), strict=True):
            key = (entry.get("section"), *entry.get("part", ()), entry.get("region"))
            patches, mass = found.get(key, (0, 0.0))
            found[key] = patches + entry["patches"], mass + float(matrix[0, 1])
    return {k: (n, pytest.approx(mass, rel=1e-4, abs=1e-6)) for k, (n, mass) in found.items()}


def test_means_are_those_of_the_patches_and_their_rows_sum_to_one(finished):
    network = load_network(finished.folder / "network.safetensors")
    data = anndata.read_h5ad(finished.results / "attention/genes.h5ad")
    assert list(data.obs_names) == list(data.var_names) == list(PANEL)
    assert set(data.layers) == {"section_000", "section_001", "region_3", "region_7"}
    for matrix in (data.X, *data.layers.values()):
        np.testing.assert_allclose(np.asarray(matrix).sum(1), 1, rtol=1e-5)
    counts = patches(finished, range(-1, 3)).flatten(0, 1)
    matrices = teramind.gene_attention(network, counts)[-1].numpy()
    there = counts[:, :, :, 1].flatten(1).any(1).numpy()
    np.testing.assert_allclose(data.layers["section_000"], matrices[there].mean(0), rtol=1e-5)
    assert data.uns["patches"]["section_000"] == there.sum()
    drawn = counts[:, :, :, 1:3].sum((0, 1, 2))
    assert data.obs["molecules_section_000"].tolist() == drawn[0].tolist()
    assert data.obs["molecules"].tolist() == drawn.sum(0).tolist()
    left = np.arange(len(counts)) % 6 < 3
    in_left = [left & counts[:, :, :, 1 + z].flatten(1).any(1).numpy() for z in range(2)]
    weights = sum(in_left)
    mean = np.average(matrices, axis=0, weights=weights)
    np.testing.assert_allclose(data.layers["region_3"], mean, rtol=1e-5)


def test_pairs_are_ordered_and_their_chances_are_chances(finished):
    table = pd.read_csv(finished.results / "attention/pairs.tsv", sep="\t")
    assert set(table.region) == {3, 7}
    assert len(table) == 2 * 6  # all ordered pairs of three genes
    assert (table.gene != table.attends_to).all()
    assert table.p.between(1 / 100, 1).all()
    assert table.p_corrected.between(1 / 100, 1).all()
    assert table.sort_values("z", key=np.abs).p_corrected.is_monotonic_decreasing
    for _, rows in table.groupby("region"):
        assert rows.z.abs().is_monotonic_decreasing


def test_pictures_are_drawn_for_every_pathway_and_section(finished):
    for pathway in ("PAIR", "TRIO"):
        folder = finished.results / f"attention/pictures/{pathway}"
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["joint.png", "section_000.png", "section_001.png"]
        for path in folder.iterdir():
            assert imagecodecs.png_decode(path.read_bytes())[..., :3].std() > 10


def test_settings_of_attention_do_not_make_other_voxels(finished, tmp_path):
    """Attention may be asked for, or changed, after the volume was made."""
    without = Project(tmp_path, expression__synonyms="synonyms.tsv", generate__slab=128).config
    assert without.identity() == finished.config.identity()


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("pathways.gmt", b"PAIR\t\tTh\tSlc17a8\n", "Slc17a8 (PAIR, near: Slc17a7)"),
        ("pathways.gmt", b"PAIR Th Gad1\n", "attention.pathways: pathways.gmt, line 1: name"),
        ("regions.tif", None, "regions regions.tif: 64 x 64; must be 128 x 192 (pixels of the"),
    ],
    ids=["unknown gene", "no tabs", "other size"],
)
def test_a_faulty_file_is_refused(tmp_path, file, content, line):
    project = make_project(tmp_path)
    if content is None:
        tifffile.imwrite(tmp_path / file, np.zeros((64, 64), np.uint8))
    else:
        (tmp_path / file).write_bytes(content)
    assert line in project.fail("--cores", "1", "--until", "create_attention", "attention_all")
    assert not list(project.results.glob("attention/*"))
