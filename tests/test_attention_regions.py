"""Regions are read where they are asked for, and their sums are those of their patches."""

import json

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from workflow_project import config_with

from teramind.attention.regions import OUTSIDE, LabelImage, Polygons, open_regions
from teramind.attention.sums import MOST_PARTS, part_edge
from teramind.attention.volumes import regions_of
from teramind.config import parse_config
from teramind.errors import UserError
from teramind.geometry import Rect

PLANE = Rect(0, 0, 96, 160)


def opened(path, **changes):
    return open_regions(
        path,
        **{"plane": PLANE, "drawn": PLANE, "sections": 2, "pixel_size_um": 0.5, "units": "pixel"}
        | changes,
    )


def square(y, x, edge):
    return [[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge], [x, y]]


def write_geojson(path, *features):
    made = [
        {
            "type": "Feature",
            "properties": properties,
            "geometry": {"type": kind, "coordinates": coordinates},
        }
        for kind, coordinates, properties in features
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": made}))
    return path


@given(
    step=st.sampled_from([1, 16]),
    sections=st.booleans(),
    y=st.lists(st.integers(-40, 140), min_size=1, max_size=6).map(sorted),
    x=st.lists(st.integers(-40, 200), min_size=1, max_size=6).map(sorted),
    corner=st.tuples(st.integers(-64, 64), st.integers(-64, 64)),
    compression=st.sampled_from([None, "zlib"]),
    tile=st.sampled_from([None, (16, 32)]),
)
@settings(max_examples=60, deadline=None)
def test_a_label_image_is_read_at_any_places(
    tmp_path_factory, step, sections, y, x, corner, compression, tile
):
    rng = np.random.default_rng(step)
    shape = (PLANE.height // step, PLANE.width // step)
    image = rng.integers(0, 4, (2, *shape) if sections else shape).astype(np.uint16)
    file = tmp_path_factory.mktemp("labels") / "r.tif"
    tifffile.imwrite(file, image, photometric="minisblack", compression=compression, tile=tile)
    plane = Rect(*corner, PLANE.height, PLANE.width)
    found = opened(file, plane=plane).labels(1, np.array(y), np.array(x))
    of_section = image[1] if sections else image
    for i, j in np.ndindex(found.shape):
        row, col = y[i] - corner[0], x[j] - corner[1]
        inside = 0 <= row < PLANE.height and 0 <= col < PLANE.width
        label = of_section[row // step, col // step] if inside else 0
        assert found[i, j] == (label or OUTSIDE)


def test_polygons_have_names_holes_and_sections(tmp_path):
    file = write_geojson(
        tmp_path / "r.geojson",
        ("Polygon", [square(0, 0, 64), square(16, 16, 32)], {"name": "ring"}),
        ("MultiPolygon", [[square(0, 100, 20)], [square(60, 100, 20)]], {"section": 1}),
        ("Polygon", [square(0, 0, 96)], {"classification": {"name": "a/b"}}),
        ("Point", [1, 2], {}),
    )
    regions = opened(file)
    names = np.array(["ring", "region 2", "a_b"])
    labels = regions.labels(1, np.array([8, 30, 70]), np.array([8, 30, 110]))
    assert [regions.name(label) for label in range(3)] == names.tolist()
    assert labels.tolist() == [[0, 0, 1], [0, 2, OUTSIDE], [2, 2, 1]]
    assert regions.labels(0, np.array([8]), np.array([110])).tolist() == [[OUTSIDE]]


@pytest.mark.parametrize(
    ("about", "name"),
    [
        ({"name": "own", "classification": {"name": "class"}}, "own"),
        ({"name": None, "classification": {"name": "Cortex", "color": [0, 1, 2]}}, "Cortex"),
        ({"classification": {"names": ["Cortex", "L1"], "color": [0, 1, 2]}}, "Cortex: L1"),
        ({"classification": "Cortex"}, "Cortex"),
        ({"classification": None}, "region 1"),
        ({}, "region 1"),
        (None, "region 1"),
    ],
)
def test_a_polygon_is_called_by_its_name_or_its_class(tmp_path, about, name):
    file = write_geojson(tmp_path / "r.geojson", ("Polygon", [square(0, 0, 64)], about))
    assert opened(file).name(0) == name


@pytest.mark.parametrize("form", ["collection", "list", "alone"])
def test_features_may_stand_in_a_collection_in_a_list_or_alone(tmp_path, form):
    file = write_geojson(tmp_path / "r.geojson", ("Polygon", [square(0, 0, 64)], {"name": "a"}))
    collection = json.loads(file.read_text())
    feature = collection["features"][0]
    forms = {"collection": collection, "list": [feature], "alone": feature}
    file.write_text(json.dumps(forms[form]))
    regions = opened(file)
    assert regions.labels(0, np.array([8, 80]), np.array([8])).tolist() == [[0], [OUTSIDE]]
    assert regions.name(0) == "a"


def test_features_without_geometry_are_passed_over(tmp_path):
    file = write_geojson(tmp_path / "r.geojson", ("Polygon", [square(0, 0, 64)], {}))
    content = json.loads(file.read_text())
    content["features"].insert(0, {"type": "Feature", "properties": {}, "geometry": None})
    file.write_text(json.dumps(content))
    assert opened(file).labels(0, np.array([8]), np.array([8])).tolist() == [[0]]


@pytest.mark.parametrize(
    ("positions", "sections"),
    [
        ((None, 1), (0, 1)),  # QuPath leaves out a z of 0
        ((0, 1), (0, 1)),
        ((1, 1), (1, 1)),
        ((None, None), (None, None)),  # as on a slide
        ((0, None), (None, None)),
    ],
)
def test_qupath_s_z_is_the_section_where_any_lies_above_0(tmp_path, positions, sections):
    shapes = [("Polygon", [square(0, x, 32)], {}) for x in (0, 64)]
    file = write_geojson(tmp_path / "r.geojson", *shapes)
    content = json.loads(file.read_text())
    for feature, z in zip(content["features"], positions, strict=True):
        feature["geometry"] |= {} if z is None else {"plane": {"c": -1, "z": z, "t": 0}}
    file.write_text(json.dumps(content))
    assert tuple(section for _, section, _ in opened(file).shapes) == sections


@pytest.mark.parametrize(
    ("corner", "about"), [((96, 0), {}), ((0, 160), {}), ((16, 0), {}), ((64, 0), {"section": 2})]
)
def test_polygons_that_all_miss_what_is_drawn_are_refused(tmp_path, corner, about):
    file = write_geojson(tmp_path / "r.geojson", ("Polygon", [square(*corner, 32)], about))
    with pytest.raises(UserError) as caught:
        opened(file, drawn=Rect(48, 0, 48, 160))
    assert str(caught.value) == (
        f"regions {file}: nothing in it touches what is drawn, [y, x, height, width] "
        "[48, 0, 48, 160] in pixels of the plane in sections 0 to 1; attention.units says what "
        "coordinates are, which count from the plane's pixel (0, 0)"
    )


def test_polygons_that_miss_what_is_drawn_beside_others_are_named(tmp_path, capfd):
    shapes = [("Polygon", [square(y, 0, 32)], {"name": f"at {y}"}) for y in (0, 16, 48)]
    file = write_geojson(tmp_path / "r.geojson", *shapes)
    opened(file)
    assert capfd.readouterr().err == ""
    opened(file, drawn=Rect(48, 0, 48, 160))
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"regions {file}: 2 of 3 shapes lie outside what is drawn, ")
    assert line.endswith(": at 0, at 16")


def test_a_region_is_what_polygons_must_touch(tmp_path):
    file = write_geojson(tmp_path / "r.geojson", ("Polygon", [square(0, 0, 32)], {}))
    asked = {"attention__pathways": "p.gmt", "attention__regions": str(file)}
    whole, part = (
        parse_config(config_with(region=region, **asked)) for region in ("all", [64, 64, 64, 64])
    )
    assert regions_of(whole, whole.attention)
    with pytest.raises(UserError, match=r"what is drawn, .* \[64, 64, 64, 64\]"):
        regions_of(part, part.attention)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"section": "section_003"}, "section is 'section_003'; must be its number, from 0"),
        ({"section": -1}, "section is -1; must be its number, from 0"),
        ({"section": 1.5}, "section is 1.5; must be its number, from 0"),
    ],
)
def test_a_section_that_is_no_number_is_refused(tmp_path, change, line):
    shape = ("Polygon", [square(0, 0, 32)])
    file = write_geojson(tmp_path / "r.geojson", (*shape, {"section": "1"}), (*shape, change))
    with pytest.raises(UserError) as caught:
        opened(file)
    assert str(caught.value) == f"regions {file}: feature 2: {line}"


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("a_b", "a/b"), "feature 2: 'a/b' would be written as 'a_b', as feature 1 is"),
        (("a/b", "a_b"), "feature 2: 'a_b' would be written as 'a_b', as feature 1 is"),
        (("a", "b\ud800"), r"feature 2: name 'b\ud800' is not a line of text"),
        (("b\n",), r"feature 1: name 'b\n' is not a line of text"),
    ],
)
def test_names_that_cannot_be_told_apart_or_written_are_refused(tmp_path, names, line):
    shapes = [("Polygon", [square(0, 0, 32)], {"name": name}) for name in names]
    file = write_geojson(tmp_path / "r.geojson", *shapes)
    with pytest.raises(UserError) as caught:
        opened(file)
    assert str(caught.value).startswith(f"regions {file}: {line}")


def test_shapes_of_one_name_are_one_region(tmp_path):
    shapes = [("Polygon", [square(0, x, 32)], {"name": "a/b"}) for x in (0, 64)]
    labels = opened(write_geojson(tmp_path / "r.geojson", *shapes)).labels
    assert labels(0, np.array([8]), np.array([8, 40, 72])).tolist() == [[0, OUTSIDE, 0]]


def test_polygons_in_micrometres_are_scaled(tmp_path):
    file = write_geojson(tmp_path / "r.geojson", ("Polygon", [square(0, 0, 10)], {}))
    places = np.array([9, 19, 21])
    assert (opened(file).labels(0, places, places).diagonal() >= 0).tolist() == [True, False, False]
    found = opened(file, units="um").labels(0, places, places).diagonal()
    assert (found >= 0).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.tif", b"II*\0", "not a readable TIFF"),
        ("r.tif", b"hello", "not a readable TIFF"),
        ("r.geojson", b"{", "not GeoJSON with polygons"),
        ("r.geojson", b'{"type": "FeatureCollection", "features": []}', "no Polygon"),
        ("r.geojson", b'{"type": "Feature", "geometry": null}', "no Polygon"),
        (
            "r.json",
            b'{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[0,0],[1,1]]]}}',
            r"feature 1: not a Polygon: a ring needs at least four finite points",
        ),
        ("r.png", b"x", "must be a label image"),
        ("r.geojson", b"[1]", "feature 1: got 1; must be a Feature with a geometry"),
        ("r.geojson", b'{"type":"GeometryCollection"}', "feature 1: got 'GeometryCollection'"),
        ("r.geojson", b"1", "not GeoJSON"),
        ("r.geojson", b"[" * 100_000, "not GeoJSON with polygons"),
    ],
)
def test_a_faulty_file_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as hit:
        opened(tmp_path / name)
    assert "\n" not in str(hit.value)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_label_image_that_is_cut_off_is_one_line(tmp_path, compression):
    file = tmp_path / "r.tif"
    labels = np.random.default_rng(0).integers(0, 99, (96, 160)).astype(np.uint16)
    tifffile.imwrite(file, labels, compression=compression, metadata=None)
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"regions .*r\.tif: not (a )?readable"):
        opened(file).labels(0, np.arange(96), np.arange(160))


def test_an_image_compressed_in_one_piece_is_refused_where_pieces_are_large(tmp_path, monkeypatch):
    monkeypatch.setattr("teramind.attention.regions.LARGEST", 96 * 160 - 1)
    labels = np.zeros((96, 160), np.uint16)
    tifffile.imwrite(tmp_path / "plain.tif", labels)
    tifffile.imwrite(tmp_path / "tiled.tif", labels, compression="zlib", tile=(16, 16))
    for name in ("plain", "tiled"):
        assert (opened(tmp_path / f"{name}.tif").labels(0, *2 * [np.arange(9)]) == OUTSIDE).all()
    tifffile.imwrite(tmp_path / "whole.tif", labels, compression="zlib", rowsperstrip=96)
    with pytest.raises(UserError, match=r"pieces of 96 x 160 pixels, .* write it in tiles"):
        opened(tmp_path / "whole.tif")


@pytest.mark.parametrize(
    "image",
    [np.zeros((96, 161), np.uint8), np.zeros((3, 96, 160), np.uint8), np.zeros((96, 160), "f4")],
    ids=["size", "sections", "type"],
)
def test_a_label_image_that_does_not_fit_says_what_would(tmp_path, image):
    tifffile.imwrite(tmp_path / "r.tif", image, photometric="minisblack")
    with pytest.raises(UserError, match="must be"):
        opened(tmp_path / "r.tif")


def test_sections_that_are_images_of_their_own_are_refused(tmp_path):
    """Else the first would stand for all. A smaller picture beside the labels is no fault."""
    with tifffile.TiffWriter(tmp_path / "r.tif") as file:
        for _ in range(2):
            file.write(np.zeros((96, 160), np.uint8))
    with pytest.raises(UserError) as caught:
        opened(tmp_path / "r.tif")
    assert str(caught.value) == (
        f"regions {tmp_path / 'r.tif'}: 2 images of 96 x 160, but one must hold all sections; "
        "write them as one array (section, y, x)"
    )
    with tifffile.TiffWriter(tmp_path / "r.tif") as file:
        file.write(np.zeros((96, 160), np.uint8))
        file.write(np.zeros((48, 80), np.uint8))
    assert opened(tmp_path / "r.tif").array.shape == (96, 160)


def test_each_kind_has_its_reader(tmp_path):
    tifffile.imwrite(tmp_path / "r.tif", np.zeros((6, 10), np.uint8))
    file = write_geojson(tmp_path / "r.geojson", ("Polygon", [square(0, 0, 10)], {}))
    assert isinstance(opened(tmp_path / "r.tif"), LabelImage)
    assert isinstance(opened(file), Polygons)


@given(height=st.integers(1, 5000), width=st.integers(1, 5000))
def test_there_are_few_parts_however_large_the_plane(height, width):
    edge = part_edge(Rect(0, 0, 32 * height, 32 * width), 32)
    assert -(-height // edge) * -(-width // edge) <= MOST_PARTS
    assert edge == 2 or -(-height // (edge // 2)) * -(-width // (edge // 2)) > MOST_PARTS
