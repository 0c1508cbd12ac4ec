"""Whole-slide images: judged by tifffile, Bio-Formats and tiffslide."""

import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from bioformats_reader import read_image

from teramind.volume import VolumeLayout, build_pyramid, create_volume, read_volume, write_slab
from teramind.volume.wsi import export_section

SHAPE = (2, 2, 1090, 1303)
SLAB = 768
NAME = "brain é & <1>"


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("volume") / "brain.ome.zarr"
    voxels = np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)
    create_volume(
        path,
        VolumeLayout(
            shape=SHAPE,
            slab=SLAB,
            pixel_size_um=0.108,
            section_spacing_um=10.0,
            stains=("DAPI", "PolyT"),
            attributes={},
        ),
    )
    for y in range(0, SHAPE[2], SLAB):
        for x in range(0, SHAPE[3], SLAB):
            write_slab(path, voxels=voxels[:, :, y : y + SLAB, x : x + SLAB], z=0, y=y, x=x)
    build_pyramid(path, z=1)
    return path


@pytest.fixture(scope="module")
def slide(volume: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "section_0001.ome.tif"
    export_section(volume=volume, z=1, path=path, name=NAME)
    return path


def levels_of(volume: Path) -> list[np.ndarray]:
    return [read_volume(volume, level=level, z=1)[:, 0] for level in range(3)]


def test_the_slide_holds_the_section_at_every_level(volume: Path, slide: Path) -> None:
    with tifffile.TiffFile(slide) as tiff:
        assert tiff.is_bigtiff
        assert tiff.is_ome
        (series,) = tiff.series
        assert (series.axes, series.name) == ("CYX", NAME)
        assert len(series.levels) == 3
        for level, wanted in zip(series.levels, levels_of(volume), strict=True):
            np.testing.assert_array_equal(level.asarray(), wanted)


def test_every_page_is_tiled_compressed_and_scaled(slide: Path) -> None:
    with tifffile.TiffFile(slide) as tiff:
        for n, level in enumerate(tiff.series[0].levels):
            for page in (level.pages[c].aspage() for c in range(2)):
                assert (page.tilelength, page.tilewidth) == (512, 512)
                assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
                assert page.resolutionunit == tifffile.RESUNIT.CENTIMETER
                assert page.resolution == pytest.approx((1e4 / 0.108 / 2**n,) * 2)
                assert page.is_reduced == (n > 0)


def test_the_same_section_gives_the_same_bytes(volume: Path, slide: Path, tmp_path: Path) -> None:
    export_section(volume=volume, z=1, path=tmp_path / "again.ome.tif", name=NAME)
    assert (tmp_path / "again.ome.tif").read_bytes() == slide.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.ome.tif"]


def test_the_slide_says_that_it_is_synthetic(slide: Path) -> None:
    with tifffile.TiffFile(slide) as tiff:
        xml = ElementTree.fromstring(tiff.ome_metadata)
    assert xml.findtext(".//{*}Description") == f"Synthetic {NAME}, made by teramind"


def test_a_small_section_has_one_level(tmp_path: Path) -> None:
    voxels = np.full((1, 1, 40, 30), 7, np.uint8)
    create_volume(
        tmp_path / "v",
        VolumeLayout(
            shape=voxels.shape,
            slab=64,
            pixel_size_um=0.5,
            section_spacing_um=10.0,
            stains=("DAPI",),
            attributes={},
        ),
    )
    write_slab(tmp_path / "v", voxels=voxels, z=0, y=0, x=0)
    export_section(volume=tmp_path / "v", z=0, path=tmp_path / "s.ome.tif", name="small")
    with tifffile.TiffFile(tmp_path / "s.ome.tif") as tiff:
        assert len(tiff.series[0].levels) == 1
        np.testing.assert_array_equal(tiff.asarray(), voxels[0, 0])


def test_an_absent_section_writes_nothing(volume: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sections 0 to 1, not 2"):
        export_section(volume=volume, z=2, path=tmp_path / "s.ome.tif", name=NAME)
    assert not any(tmp_path.iterdir())


def test_a_level_that_cannot_be_read_leaves_no_slide(volume: Path, tmp_path: Path) -> None:
    shutil.copytree(volume, tmp_path / "v")
    shutil.rmtree(tmp_path / "v" / "2")
    with pytest.raises(FileNotFoundError):
        export_section(volume=tmp_path / "v", z=1, path=tmp_path / "s.ome.tif", name=NAME)
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_bioformats_validates_and_reads_the_slide(
    volume: Path, slide: Path, tmp_path: Path
) -> None:
    image = read_image(slide, tmp_path)
    assert (image.name, image.format, image.series) == (NAME, "OME-TIFF", 1)
    assert image.size_um == (0.108, 0.108, 10.0)
    assert image.channels == [("DAPI", "0000FFFF"), ("PolyT", "FFB000FF")]
    for level, wanted in zip(image.levels, levels_of(volume), strict=True):
        np.testing.assert_array_equal(level, wanted)


def test_tiffslide_opens_the_slide(volume: Path, slide: Path) -> None:
    tiffslide = pytest.importorskip("tiffslide", reason="tiffslide is not installed")
    with tiffslide.TiffSlide(slide) as opened:
        shapes = [level.shape for level in levels_of(volume)]
        assert list(opened.level_dimensions) == [(x, y) for _, y, x in shapes]
        assert float(opened.properties["tiffslide.mpp-x"]) == pytest.approx(0.108)
