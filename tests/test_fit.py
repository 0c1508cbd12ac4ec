"""What does not fit the configuration is said before any job runs."""

import pytest
from workflow_project import ROOT, config_with, write_network

from teramind.config import parse_config
from teramind.config.reading import read_config
from teramind.errors import UserError
from teramind.run.fit import require_fit

TRAINING = {
    "network__checkpoint": "train",
    "expression__panel": "p.txt",
    "reference__images": "i",
}

BUNDLED = "resources/phantom.safetensors"
DRAWN_WITH_IT = [
    path
    for path in sorted([ROOT / "config.yaml", *(ROOT / "config").glob("*.yaml")])
    if read_config(path)["network"]["checkpoint"] == BUNDLED
]
"""Configurations that come with teramind, as its network does."""


def config(**changes):
    """On a plane of 128 x 192 pixels, with patches of 32."""
    return parse_config(config_with(**TRAINING, **changes))


def test_windows_that_fit_pass():
    require_fit(config(train__window=3, reference__holdout=[0, 128, 128, 64]))


def test_a_holdout_that_leaves_no_window_to_train_on_is_refused():
    with pytest.raises(UserError, match=r"^train\.window: 3 patches are 96 pixels, .* train part"):
        require_fit(config(train__window=3, reference__holdout=[0, 0, 128, 192]))


def test_blocks_smaller_than_a_window_are_refused():
    split = {"block": 32, "guard": 0, "test": 0}
    with pytest.raises(UserError) as caught:
        require_fit(config(train__window=3, reference__split=split))
    assert "96 pixels, which fit nowhere in the validation part" in str(caught.value)


def test_a_published_start_is_left_to_the_job(tmp_path):
    (start := tmp_path / "last.ckpt").write_bytes(b"pickled")
    require_fit(config(train={"start": str(start), "window": 2}))


@pytest.mark.parametrize("file", ["", "last.ckpt"])
def test_a_published_folder_s_name_tells_what_does_not_fit(tmp_path, file):
    (folder := tmp_path / "638850_64_6_all_4_ours").mkdir()
    (folder / "last.ckpt").touch()
    named = {"network__checkpoint": str(folder / file), "expression__panel": "p.txt"}
    named |= {"plane__sections": 8, "generate__slab": 64}
    require_fit(parse_config(config_with(**named, network__patch=64)))
    wrong = {"network__sections": 8, "network__stains": ["DAPI"]}
    with pytest.raises(UserError) as caught:
        require_fit(parse_config(config_with(**named, **wrong)))
    said = f"but the name of the folder {folder} says"
    assert str(caught.value).splitlines() == [
        f"network.patch: 32, {said} 64",
        f"network.sections: 8, {said} 4",
        f"network.stains: ['DAPI'], {said} ['DAPI', 'PolyT']",
    ]


def test_every_key_that_a_start_contradicts_is_named(tmp_path):
    write_network(start := tmp_path / "start.safetensors")  # base 2, embed 8
    require_fit(config(train={"start": str(start), "window": 2, "base": 2}))
    with pytest.raises(UserError) as caught:
        require_fit(
            config(train={"start": str(start), "window": 2, "base": 4}, network__stains=["DAPI"])
        )
    assert str(caught.value).splitlines() == [
        f"train.start: {start} has stains ['DAPI', 'PolyT'], network.stains is ['DAPI']",
        f"train.start: {start} has base 2, train.base is 4; leave it out",
    ]


@pytest.mark.parametrize("path", DRAWN_WITH_IT, ids=lambda path: path.stem)
def test_the_bundled_network_fits_the_configurations_that_name_it(monkeypatch, path):
    monkeypatch.chdir(ROOT)
    assert (ROOT / BUNDLED).is_file()  # what is not there fits whatever is asked
    require_fit(parse_config(read_config(path)))


def test_the_example_is_among_the_configurations_of_the_bundled_network():
    assert {ROOT / "config.yaml", ROOT / "config/bundled.yaml"} <= set(DRAWN_WITH_IT)
