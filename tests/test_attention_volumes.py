"""The volumes of pathways are made for what the network reads, and others' are removed."""

import shutil

import numpy as np
import pytest
from workflow_project import config_with, write_network

from teramind.attention.volumes import create_pathway_volumes, volume_path
from teramind.config import parse_config
from teramind.errors import UserError
from teramind.expression.raster_writer import RasterWriter
from teramind.files import write_json
from teramind.geometry import Rect
from teramind.volume import volume_layout, write_slab
from teramind.volume.verify import verify

PANEL = ("Gad1", "Slc17a7", "Th", "Vip")


@pytest.fixture
def create(tmp_path):
    """Create the volumes of pathways, name -> genes; the network reads the first three genes."""
    with RasterWriter(tmp_path / "raster", panel=PANEL, sections=2, extent=Rect(0, 0, 128, 192)):
        pass  # nothing in it
    write_network(tmp_path / "network.safetensors", panel=PANEL[:3])

    def make(pathways, *, trained=True, **changes):
        lines = ("\t".join((name, "", *genes)) for name, genes in pathways.items())
        (tmp_path / "p.gmt").write_text("\n".join(lines))
        config = parse_config(
            config_with(attention__pathways=str(tmp_path / "p.gmt"), generate__slab=128, **changes)
        )
        return create_pathway_volumes(
            config,
            tmp_path / "attention",
            raster=tmp_path / "raster",
            checkpoint=tmp_path / "network.safetensors" if trained else None,
        )

    return make


def test_genes_beyond_those_that_the_network_reads_are_refused(create):
    with pytest.raises(UserError, match=r"not on the panel of 3 genes: Vip \(A\)"):
        create({"A": ("Gad1", "Vip")})
    assert create({"A": ("Gad1", "th")})["pathways"] == {"A": ["Gad1", "Th"]}


def test_a_network_that_is_yet_to_learn_reads_all_genes(create):
    made = create({"A": ("Gad1", "Vip")}, trained=False)
    assert made["pathways"] == {"A": ["Gad1", "Vip"]}


def draw(folder, *names):
    """Something under the names of a pathway's pictures."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("picture")


def test_volumes_and_pictures_of_pathways_that_are_no_more_are_removed(create, tmp_path):
    folder = tmp_path / "attention"
    create({"A": ("Gad1", "Th"), "B": ("Gad1", "Th"), "C": ("Gad1", "Th")})
    for name in "ABC":
        draw(folder / "pictures" / name, "joint.png", "section_000.png")
    (folder / "pictures/B/mine.png").write_text("mine")
    create({"A": ("Gad1", "Th")})
    kept = {str(path.relative_to(folder)) for path in folder.glob("pictures/*/*")}
    assert [path.name for path in folder.glob("*.zarr")] == ["A.zarr"]
    pictures = {"pictures/A/joint.png", "pictures/A/section_000.png"}
    assert kept == {*pictures, "pictures/B/mine.png"}
    assert not (folder / "pictures/C").exists()


def test_what_is_no_volume_of_a_pathway_stays_and_links_are_not_followed(create, tmp_path):
    folder, elsewhere = tmp_path / "attention", tmp_path / "elsewhere"
    create({"A": ("Gad1", "Th"), "B": ("Gad1", "Th"), "C": ("Gad1", "Th")})
    volume_path(folder, "B").rename(elsewhere)
    volume_path(folder, "B").symlink_to(elsewhere)
    draw(tmp_path / "drawn", "joint.png")
    (folder / "pictures").mkdir()
    (folder / "pictures/C").symlink_to(tmp_path / "drawn")
    draw(folder / "mine.zarr", "zarr.json")
    create({"A": ("Gad1", "Th")})
    assert (elsewhere / "zarr.json").exists()
    assert (tmp_path / "drawn/joint.png").exists()
    assert (folder / "mine.zarr/zarr.json").exists()
    assert not volume_path(folder, "C").exists()


def test_a_volume_of_other_settings_is_made_again_and_one_of_the_same_is_left(create, tmp_path):
    path = volume_path(tmp_path / "attention", "A")
    create({"A": ("Gad1", "Th")})
    draw(path / "0/c", "voxels")
    create({"A": ("Gad1", "Th")})
    assert (path / "0/c/voxels").exists()
    create({"A": ("Th", "Gad1")})
    assert volume_layout(path).attributes["genes"] == ["Th", "Gad1"]
    assert not (path / "0/c").exists()


def test_what_is_no_volume_is_refused_and_stays(create, tmp_path):
    path = volume_path(tmp_path / "attention", "A")
    draw(path, "mine")
    with pytest.raises(UserError, match=r"A\.zarr is not a volume of teramind"):
        create({"A": ("Gad1", "Th")})
    assert (path / "mine").exists()


@pytest.mark.parametrize("lost", ["A.zarr", "A.zarr/zarr.json", "A.zarr/0/zarr.json"])
def test_a_pathway_that_is_gone_comes_back_by_a_repair_and_a_run(create, tmp_path, lost):
    folder = tmp_path / "attention"
    receipt = folder / "receipts/w00_r00_c00.json"
    write_json(folder / "layout.json", create({"A": ("Gad1", "Th"), "B": ("Th", "Slc17a7")}))
    draw_maps(folder, receipt)
    assert "are as they were written" in verify(tmp_path, repair=False, threads=1)
    whole = files(folder)
    shutil.rmtree(folder / lost) if lost == "A.zarr" else (folder / lost).unlink()
    with pytest.raises(UserError, match=r"A\.zarr/(0/)?zarr\.json: differs"):
        verify(tmp_path, repair=True, threads=1)
    if not receipt.exists():
        draw_maps(folder, receipt)
    assert files(folder) == whole
    assert "are as they were written" in verify(tmp_path, repair=False, threads=1)


def test_a_record_without_metadata_still_stands_for_its_shards(create, tmp_path):
    """As an older program wrote it."""
    folder = tmp_path / "attention"
    made = create({"A": ("Gad1", "Th"), "B": ("Th", "Slc17a7")})
    write_json(folder / "layout.json", made["pathways"])
    draw_maps(folder, folder / "receipts/w00_r00_c00.json")
    assert "4 shards of 1 records" in verify(tmp_path, repair=False, threads=1)


def draw_maps(folder, receipt):
    """The maps of the first slab, and their receipt."""
    shards = {}
    for name in "AB":
        channels = volume_layout(volume_path(folder, name)).shape[0]
        voxels = np.full((channels, 2, 8, 8), 1, np.float32)
        shards[name] = write_slab(volume_path(folder, name), voxels=voxels, z=0, y=0, x=0)
    write_json(receipt, {"slab": receipt.stem, "shards": shards})


def files(folder):
    """The bytes of every file."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
