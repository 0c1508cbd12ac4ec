"""Real images reach the network's pixel size exactly, or are refused with a reason."""

import re

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from teramind.errors import UserError
from teramind.geometry import Rect
from teramind.images.resample import open_images, require_plane, resample_images

STAINS = ("DAPI", "PolyT")


def write(path, pixels, axes="CZYX", names=STAINS, pixel_um=0.5, **metadata):
    """An OME-TIFF; `pixel_um` and `names` None leave them out of the metadata."""
    metadata["axes"] = axes
    if names:
        metadata["Channel"] = {"Name": list(names)}
    if pixel_um:
        for axis in "YX":
            metadata.setdefault(f"PhysicalSize{axis}", pixel_um)
            metadata.setdefault(f"PhysicalSize{axis}Unit", "µm")
    tifffile.imwrite(
        path, pixels, ome=True, metadata=metadata, photometric="minisblack", tile=(64, 64)
    )
    return path


def pixels(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def resample(source, *, stains=STAINS, pixel_size_um=1.0, white=None):
    target = source.with_name("out.zarr")
    resample_images(source, target, stains=stains, pixel_size_um=pixel_size_um, white=white)
    return zarr.open_array(target, mode="r")[:]


def block_mean(a, factor):
    """Mean over blocks of the last two axes, halves rounded up."""
    height, width = (edge // factor for edge in a.shape[-2:])
    whole = a[..., : height * factor, : width * factor].astype(int)
    blocks = whole.reshape(*a.shape[:-2], height, factor, width, factor)
    return np.floor(blocks.mean(axis=(-3, -1)) + 0.5)


def refusal(source, **settings):
    """The line with which an image is refused; nothing is left behind."""
    before = set(source.parent.iterdir())
    with pytest.raises(UserError) as error:
        resample(source, **settings)
    line = str(error.value)
    assert "\n" not in line
    assert line.startswith(f"image {source}: ")
    assert set(source.parent.iterdir()) == before
    return line


@settings(max_examples=15)
@given(factor=st.integers(1, 5), height=st.integers(5, 90), width=st.integers(5, 90))
def test_pixels_are_the_means_of_whole_blocks(tmp_path_factory, factor, height, width):
    a = pixels(2, 2, height, width)
    source = write(tmp_path_factory.mktemp("mean") / "a.ome.tif", a)
    found = resample(source, pixel_size_um=0.5 * factor)
    np.testing.assert_array_equal(found, block_mean(a, factor))
    assert found.dtype == np.uint8


@settings(max_examples=15)
@given(factor=st.integers(1, 4), white=st.integers(140, 255))
def test_the_white_level_becomes_255_and_the_rest_is_in_proportion(tmp_path_factory, factor, white):
    a = pixels(2, 2, 40, 50)
    source = write(tmp_path_factory.mktemp("white") / "a.ome.tif", a)
    found = resample(source, pixel_size_um=0.5 * factor, white={"PolyT": white})
    np.testing.assert_array_equal(found[0], block_mean(a[0], factor))
    height, width = (edge // factor for edge in a.shape[-2:])
    blocks = a[1][..., : height * factor, : width * factor].astype(int)
    total = blocks.reshape(2, height, factor, width, factor).sum((2, 4))
    expected = [[round_half_up(255 * int(v), white * factor**2) for v in z.ravel()] for z in total]
    np.testing.assert_array_equal(found[1].reshape(2, -1), np.minimum(expected, 255))


def round_half_up(numerator, denominator):
    return (2 * numerator + denominator) // (2 * denominator)


def test_bands_of_a_large_image_join(tmp_path):
    a = pixels(1, 1, 1300, 40)
    source = write(tmp_path / "a.ome.tif", a, names=None)
    np.testing.assert_array_equal(resample(source, stains=("DAPI",)), block_mean(a, 2))


@pytest.mark.parametrize("axes", ["CZYX", "ZCYX"])
def test_axes_come_in_any_order(tmp_path, axes):
    a = pixels(2, 3, 40, 60)
    ordered = a if axes == "CZYX" else a.swapaxes(0, 1)
    found = resample(write(tmp_path / "a.ome.tif", ordered, axes))
    np.testing.assert_array_equal(found, block_mean(a, 2))


@pytest.mark.parametrize(("axes", "shape"), [("YX", (1, 1)), ("ZYX", (1, 3))])
def test_absent_axes_have_length_one(tmp_path, axes, shape):
    a = pixels(*shape, 40, 60)
    source = write(tmp_path / "a.ome.tif", a[0, 0] if axes == "YX" else a[0], axes, names=None)
    np.testing.assert_array_equal(resample(source, stains=("DAPI",)), block_mean(a, 2))


def test_channels_are_chosen_by_name(tmp_path):
    a = pixels(3, 1, 40, 60)
    source = write(tmp_path / "a.ome.tif", a, names=("PolyT", "Cellbound", "DAPI"))
    np.testing.assert_array_equal(resample(source), block_mean(a[[2, 0]], 2))


def test_nameless_channels_are_taken_in_turn(tmp_path):
    a = pixels(2, 1, 40, 60)
    source = write(tmp_path / "a.ome.tif", a, names=None)
    np.testing.assert_array_equal(resample(source), block_mean(a, 2))


def test_an_absent_channel_is_refused(tmp_path):
    source = write(tmp_path / "a.ome.tif", pixels(2, 1, 40, 60), names=("DAPI", "Cellbound"))
    assert refusal(source).endswith(
        "no channel named PolyT; its 2 channels are named ['DAPI', 'Cellbound']"
    )
    source = write(tmp_path / "b.ome.tif", pixels(3, 1, 40, 60), names=None)
    assert "no channel named DAPI; its 3 channels" in refusal(source)


def test_pixels_that_are_no_square_in_um_are_refused(tmp_path):
    a = pixels(2, 1, 40, 60)
    needed = "must give PhysicalSizeX and PhysicalSizeY, equal and with a unit of length"
    assert refusal(write(tmp_path / "a.ome.tif", a, pixel_um=None)).endswith(needed)
    assert refusal(write(tmp_path / "b.ome.tif", a, PhysicalSizeXUnit="nm")).endswith(needed)
    assert refusal(write(tmp_path / "c.ome.tif", a, PhysicalSizeY=0.6)).endswith(needed)


def test_lengths_come_in_other_units(tmp_path):
    a, units = pixels(2, 1, 40, 60), {f"PhysicalSize{axis}Unit": "nm" for axis in "XY"}
    source = write(tmp_path / "a.ome.tif", a, pixel_um=500, **units)
    np.testing.assert_array_equal(resample(source), block_mean(a, 2))


def test_an_image_without_ome_metadata_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels(40, 60))
    assert "no OME metadata" in refusal(tmp_path / "a.tif")


@settings(max_examples=25)
@given(
    scale=st.floats(0.3, 5),
    height=st.integers(12, 60),
    width=st.integers(12, 60),
    z=st.integers(1, 2),
)
def test_any_pixel_size_is_the_mean_over_the_area(tmp_path_factory, scale, height, width, z):
    a = pixels(1, z, height, width)
    source = write(tmp_path_factory.mktemp("area") / "a.ome.tif", a, names=None)
    found = resample(source, stains=("DAPI",), pixel_size_um=0.5 * scale)
    whole = round(scale)
    longest = max(height, width)
    if whole and abs(longest / scale - longest / whole) < 0.5:
        scale = whole
    expected = overlaps(height, scale) @ a @ overlaps(width, scale).T / scale**2
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 0.5 + 1e-6


def overlaps(length, scale):
    """Length that pixel j of the image shares with pixel i of the result, (i, j)."""
    n = int(np.floor(length / scale + 1e-6))
    low, high = np.arange(n)[:, None] * scale, np.arange(1, n + 1)[:, None] * scale
    j = np.arange(length)
    return np.clip(np.minimum(high, j + 1) - np.maximum(low, j), 0, None)


def test_tiles_of_any_pixel_size_join(tmp_path, monkeypatch):
    a = pixels(1, 1, 300, 420)
    source = write(tmp_path / "a.ome.tif", a, names=None)
    whole = resample(source, stains=("DAPI",), pixel_size_um=0.77)
    (tmp_path / "again").mkdir()
    monkeypatch.setattr("teramind.images.resample._TILE", 50**2)
    again = write(tmp_path / "again" / "a.ome.tif", a, names=None)
    np.testing.assert_array_equal(resample(again, stains=("DAPI",), pixel_size_um=0.77), whole)


def test_a_pixel_size_that_drifts_by_less_than_half_a_pixel_counts_as_whole(tmp_path):
    a = pixels(2, 1, 40, 60)
    source = write(tmp_path / "a.ome.tif", a)
    np.testing.assert_array_equal(resample(source, pixel_size_um=0.995), block_mean(a, 2))


def test_an_image_smaller_than_a_pixel_is_refused(tmp_path):
    source = write(tmp_path / "a.ome.tif", pixels(2, 1, 40, 60))
    assert refusal(source, pixel_size_um=25).endswith("smaller than one pixel of 25 um")


def test_sixteen_bits_need_a_white_level(tmp_path):
    a = pixels(2, 1, 40, 60).astype(np.uint16) * 100
    source = write(tmp_path / "a.ome.tif", a)
    assert "say by reference.white" in refusal(source, white={"DAPI": 25500})
    found = resample(source, white={"DAPI": 25500, "PolyT": 25500})
    np.testing.assert_array_equal(found, block_mean(a // 100, 2))


def test_constant_images_are_refused(tmp_path):
    a = pixels(2, 1, 40, 60)
    a[1] = 7
    source = write(tmp_path / "a.ome.tif", a)
    assert refusal(source).endswith("PolyT is constant, grey level 7 everywhere")


def write_zarr(
    path, a, *, version, axes="czyx", step=0.5, unit="micrometer", names=STAINS, **whole
):
    """An OME-Zarr of NGFF 0.4 or 0.5 with two levels; `whole` is said of both."""
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    for level in range(2):
        part = a[..., :: 2**level, :: 2**level]
        group.create_array(str(level), data=part, chunks=(*[1] * (a.ndim - 2), 16, 16))
    levels = [
        {
            "path": str(k),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0] * (a.ndim - 2) + [step * 2**k] * 2}
            ],
        }
        for k in range(2)
    ]
    described = [
        {"name": n, "type": "space", "unit": unit} if n in "zyxYX" else {"name": n} for n in axes
    ]
    found = {"multiscales": [{"version": version, "axes": described, "datasets": levels} | whole]}
    if names:
        found["omero"] = {"channels": [{"label": name} for name in names]}
    group.attrs.update({"ome": found} if version == "0.5" else found)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_is_read_like_ome_tiff(tmp_path, version):
    a = pixels(2, 3, 40, 60)
    found = resample(write_zarr(tmp_path / "a.zarr", a, version=version), stains=("PolyT", "DAPI"))
    np.testing.assert_array_equal(found, block_mean(a[::-1], 2))


@pytest.mark.parametrize(
    "made",
    [
        lambda path, a: write(path, a, "TCZYX"),
        lambda path, a: write_zarr(path, a, version="0.4", axes="tczyx"),
    ],
    ids=["OME-TIFF", "OME-Zarr"],
)
def test_an_image_may_have_one_time_point(tmp_path, made):
    a = pixels(2, 1, 40, 60)
    np.testing.assert_array_equal(resample(made(tmp_path / "one", a[None])), block_mean(a, 2))
    two = made(tmp_path / "two", np.repeat(a[None], 2, 0))
    assert refusal(two).endswith("has 2 time points; needs one")


def test_a_scale_of_all_levels_of_an_ome_zarr_is_applied_after_that_of_its_own(tmp_path):
    a = pixels(2, 1, 40, 60)
    moves = [
        {"type": "scale", "scale": [1.0, 1.0, 0.25, 0.25]},
        {"type": "translation", "translation": [0.0, 0.0, 9.0, 9.0]},
    ]
    source = write_zarr(
        tmp_path / "a.zarr", a, version="0.4", step=2.0, coordinateTransformations=moves
    )
    np.testing.assert_array_equal(resample(source), block_mean(a, 2))


def test_axes_of_an_ome_zarr_may_be_capitals(tmp_path):
    a = pixels(2, 1, 40, 60)
    source = write_zarr(tmp_path / "a.zarr", a, version="0.4", axes="CZYX")
    np.testing.assert_array_equal(resample(source), block_mean(a, 2))


def test_the_order_of_bytes_does_not_matter(tmp_path):
    a = pixels(2, 1, 40, 60).astype(np.uint16) * 100
    big, little = (
        write_zarr(tmp_path / name / "a.zarr", a.astype(kind), version="0.4")
        for name, kind in (("big", ">u2"), ("little", "<u2"))
    )
    white = dict.fromkeys(STAINS, 65535)
    np.testing.assert_array_equal(resample(big, white=white), resample(little, white=white))


def test_other_zarr_is_refused(tmp_path):
    zarr.create_group(tmp_path / "a.zarr")
    assert "not an OME-Zarr image" in refusal(tmp_path / "a.zarr")
    source = write_zarr(tmp_path / "b.zarr", pixels(2, 1, 40, 60), version="0.5", unit="pixel")
    assert "equal and with a unit of length" in refusal(source)


def test_colours_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels(40, 60, 3), ome=True, photometric="rgb")
    assert "uint8 with axes YXS; needs uint8 or uint16 of CZYX" in refusal(tmp_path / "a.ome.tif")


@pytest.mark.parametrize("content", [b"", b"II*\0", b"not a picture at all"])
def test_a_file_that_is_no_tiff_is_refused(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    assert "not a readable TIFF" in refusal(tmp_path / "a.tif")


def test_a_missing_file_is_refused(tmp_path):
    assert refusal(tmp_path / "a.tif").endswith("no such file")


@pytest.mark.parametrize("layout", ["metadata last", None, "zlib", "jpeg"])
def test_a_truncated_file_is_refused(tmp_path, layout):
    whole, a = tmp_path / "a.ome.tif", pixels(2, 1, 200, 300)
    write(whole, a)
    if layout != "metadata last":
        with tifffile.TiffFile(whole) as file:
            description = file.ome_metadata.encode()
        with tifffile.TiffWriter(whole) as file:
            for plane, text in zip(a[:, 0], (description, None), strict=True):
                file.write(plane, description=text, metadata=None, compression=layout)
    assert resample(whole).shape == (2, 1, 100, 150)
    content = whole.read_bytes()
    for kept in (0.3, 0.7, 0.99):
        cut = tmp_path / "cut.ome.tif"
        cut.write_bytes(content[: int(kept * len(content))])
        assert "truncated" in refusal(cut)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_pixels_in_one_piece_are_read_in_parts(tmp_path, monkeypatch, byteorder):
    """The layout that `tifffile.imwrite` has by default: whole planes, one after the other."""
    planes = pixels(2, 3, 700, 500, dtype=np.uint16)
    metadata = {"axes": "CZYX", "Channel": {"Name": list(STAINS)}}
    metadata |= {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    source = tmp_path / "a.ome.tif"
    tifffile.imwrite(source, planes, ome=True, metadata=metadata, byteorder=byteorder)
    monkeypatch.setattr("teramind.images.source.LARGEST", 100 * 100)
    found = resample(source, white=dict.fromkeys(STAINS, 255))
    np.testing.assert_array_equal(found, block_mean(planes, 2))


def test_large_pieces_that_are_compressed_are_refused_with_a_remedy(tmp_path, monkeypatch):
    source = tmp_path / "a.ome.tif"
    metadata = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(source, pixels(200, 300), ome=True, metadata=metadata, compression="zlib")
    monkeypatch.setattr("teramind.images.source.LARGEST", 100 * 100)
    assert "write it in tiles, of 512 x 512 pixels" in refusal(source, stains=("DAPI",))


def test_damaged_pixels_are_refused(tmp_path):
    source = tmp_path / "a.ome.tif"
    metadata = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(source, pixels(200, 300), ome=True, metadata=metadata, compression="zlib")
    content = bytearray(source.read_bytes())
    content[2000:3000] = bytes(1000)
    source.write_bytes(content)
    assert "not readable" in refusal(source, stains=("DAPI",))


def test_resampled_images_are_opened_again(tmp_path):
    found = resample(write(tmp_path / "a.ome.tif", pixels(2, 3, 40, 60)))
    images = open_images(tmp_path / "out.zarr", STAINS)
    assert images.shape == (2, 3, 20, 30)
    np.testing.assert_array_equal(images[:], found)


def test_a_lost_file_is_not_taken_for_a_black_section(tmp_path):
    """A section that is black has its file, too."""
    a = pixels(2, 3, 40, 60)
    a[:, 1] = 0
    resample(write(tmp_path / "a.ome.tif", a))
    assert not open_images(tmp_path / "out.zarr", STAINS)[:, 1].any()
    (tmp_path / "out.zarr/c/1/2/0/0").unlink()
    with pytest.raises(UserError, match=r"out\.zarr: c/1/2/0/0 is missing; remove all of it and"):
        open_images(tmp_path / "out.zarr", STAINS)


@pytest.mark.parametrize(
    ("shape", "dtype", "fault"),
    [
        ((2, 1, 4, 4), "uint16", "uint16"),
        ((2, 4, 4), "uint8", r"\(2, 4, 4\)"),
        ((3, 1, 4, 4), "uint8", r"c = 2 \(DAPI, PolyT\)"),
    ],
)
def test_arrays_of_another_kind_are_not_opened(tmp_path, shape, dtype, fault):
    zarr.create_array(tmp_path / "a.zarr", shape=shape, dtype=dtype)
    with pytest.raises(UserError, match=fault):
        open_images(tmp_path / "a.zarr", STAINS)


def test_a_place_without_an_array_is_not_opened(tmp_path):
    zarr.open_group(tmp_path / "group.zarr", mode="w")
    for name in ("absent.zarr", "group.zarr"):
        with pytest.raises(UserError, match=f"{name}: no Zarr array there"):
            open_images(tmp_path / name, STAINS)


@pytest.mark.parametrize("sections", [2, 3])
def test_images_may_lack_sections_of_the_plane(sections):
    images = zarr.array(pixels(2, 2, 40, 60))
    require_plane(images, Rect(0, 0, 40, 60), sections=sections, path="images", tolerance=32)


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        ((2, 7, 40, 60), "7 sections, but plane.sections is 2"),
        ((2, 2, 72, 60), "72 x 60 pixels, but the plane ends at 40 x 60"),
    ],
)
def test_images_of_another_plane_are_refused(shape, fault):
    """Seven focal planes of one section are no seven sections: six would be compared with none."""
    with pytest.raises(UserError, match=f"^images: {re.escape(fault)}; images and expression must"):
        require_plane(
            zarr.array(pixels(*shape)),
            Rect(0, 0, 40, 60),
            sections=2,
            path="images",
            tolerance=32,
        )


def test_the_real_dentate_gyrus_comes_to_its_true_resolution(shared, tmp_path):
    source = shared("data/merscope_dg_images.ome.tif")
    resample_images(
        source, tmp_path / "dg.zarr", stains=("PolyT", "DAPI"), pixel_size_um=0.86901256
    )
    images = open_images(tmp_path / "dg.zarr", ("PolyT", "DAPI"))
    assert images.shape == (2, 2, 345, 575)
    with tifffile.TiffFile(source) as file:
        corner = file.series[0].asarray()[:, ::-1, :80, :160].swapaxes(0, 1)
    np.testing.assert_array_equal(images[:, :, :10, :20], block_mean(corner, 8))
