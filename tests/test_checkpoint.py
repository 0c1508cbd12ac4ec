"""Checkpoints: what is saved comes back, and a faulty file is one line of explanation."""

import dataclasses
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from plane_noise import predict_noise
from safetensors.torch import load_file, save_file

import teramind
from teramind.errors import UserError
from teramind.network import load_network, save_network
from teramind.network.spec import METADATA_KEY, read_spec


@pytest.fixture
def saved(tiny_network, tmp_path):
    """A checkpoint of ours on disk."""
    save_network(tiny_network, tmp_path / "saved.safetensors")
    return tmp_path / "saved.safetensors"


def refusal(path):
    """The line with which a file is refused."""
    with pytest.raises(UserError) as error:
        load_network(path)
    line = str(error.value)
    assert "\n" not in line
    assert line.startswith(f"checkpoint {path}: ")
    return line


def changed(saved, **tensors):
    """The checkpoint with tensors replaced, added, or left out where None."""
    record = {METADATA_KEY: json.dumps(read_spec(saved).to_dict())}
    content = load_file(saved) | {key.replace("__", "."): v for key, v in tensors.items()}
    path = saved.with_name("changed.safetensors")
    save_file({k: v for k, v in content.items() if v is not None}, path, metadata=record)
    return path


def recorded(saved, record):
    """The checkpoint with another record in its header."""
    path = saved.with_name("recorded.safetensors")
    save_file(load_file(saved), path, metadata={METADATA_KEY: record})
    return path


def inputs(spec):
    random = torch.Generator().manual_seed(3)
    state = torch.randn(4, spec.channels, spec.patch, spec.patch, generator=random)
    shape = (4, spec.bins, spec.bins, spec.sections, spec.genes)
    return state, torch.randint(0, 5, shape, generator=random).float(), 300


def test_load_network_is_public():
    assert teramind.load_network is load_network


def test_a_saved_network_comes_back_exactly(tiny_network, saved):
    tiny_network.spec = dataclasses.replace(
        tiny_network.spec, training={"steps": 7, "data": ["a", "b"]}, licence="CC-BY-4.0"
    )
    save_network(tiny_network, saved)
    again = load_network(saved)
    assert again.spec == tiny_network.spec
    assert not again.training
    planes = inputs(again.spec)
    assert torch.equal(*(predict_noise(network, *planes) for network in (again, tiny_network)))


def test_half_precision_halves_the_file_and_loads_as_float32(tiny_network, saved):
    path = saved.with_name("half.safetensors")
    save_network(tiny_network, path, dtype=torch.float16)
    assert path.stat().st_size < 0.6 * saved.stat().st_size
    again = load_network(path).state_dict()
    for key, value in tiny_network.state_dict().items():
        assert torch.equal(again[key], value.half().float())


def test_some_weights_can_be_kept_from_rounding(tiny_network, saved):
    exact = {"head.weight", "time_in.bias"}
    save_network(tiny_network, saved, dtype=torch.float16, exact=exact)
    again = load_network(saved).state_dict()
    for key, value in tiny_network.state_dict().items():
        assert torch.equal(again[key], value if key in exact else value.half().float())


def test_weights_that_half_precision_cannot_hold_are_not_saved(tiny_network, tmp_path):
    tiny_network.head.weight[0, 0, 0, 0, 0] = 7e4
    with pytest.raises(UserError, match=r"head\.weight holds values that float16 cannot store$"):
        save_network(tiny_network, tmp_path / "half.safetensors", dtype=torch.float16)
    assert not list(tmp_path.iterdir())


def test_the_spec_is_read_without_the_weights(tiny_spec, tmp_path):
    path, size = tmp_path / "vast.safetensors", 1 << 36
    tensor = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    metadata = {METADATA_KEY: json.dumps(tiny_spec.to_dict())}
    header = json.dumps({"__metadata__": metadata, "vast": tensor}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(path, 8 + len(header) + size)  # 64 GiB that take no room on the disk
    assert read_spec(path) == tiny_spec
    path.unlink()


def test_reading_a_spec_needs_no_torch(saved):
    script = f"""
import sys
sys.modules["torch"] = None
from teramind.network import read_spec
print(read_spec({str(saved)!r}).base)
"""
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.stdout, process.stderr) == ("2\n", "")


def test_a_file_without_a_record_has_no_spec(goldens):
    assert read_spec(goldens / "z4_all_64_weights.safetensors") is None


def test_a_panel_names_the_genes_of_a_file_that_does_not(goldens, saved):
    names = ("a", "b", "c", "d", "e", "f", "g")
    assert (
        load_network(goldens / "z4_all_64_weights.safetensors", panel=names).spec.panel
        == (names[:6])
    )
    assert load_network(saved, panel=names).spec.panel == ("Gad1", "Slc17a7", "Th")


@pytest.mark.parametrize("name", ["absent.safetensors", "absent.ckpt"])
def test_a_missing_file_is_refused(tmp_path, name):
    assert refusal(tmp_path / name).endswith("no such file")


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"last\.ckpt: no such file$"):
        load_network(tmp_path)


@pytest.mark.parametrize("name", ["empty.safetensors", "empty.ckpt"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    assert "truncated or not a" in refusal(tmp_path / name)


@pytest.mark.parametrize("kept", [4, 300, -1])
def test_truncated_safetensors_are_refused(saved, kept):
    saved.write_bytes(saved.read_bytes()[:kept])
    assert "truncated or not a safetensors file" in refusal(saved)


def test_a_truncated_pickle_is_refused(tmp_path):
    torch.save({"state_dict": {"model.a": torch.ones(1000)}}, tmp_path / "last.ckpt")
    content = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(content[: len(content) // 2])
    assert "truncated or not a checkpoint" in refusal(tmp_path / "last.ckpt")


@pytest.mark.parametrize("shape", [(3,), (4, 2, 1, 3, 3)])
def test_foreign_tensors_are_refused(tmp_path, shape):
    save_file({"input_blocks.0.0.weight": torch.ones(shape)}, tmp_path / "other.safetensors")
    assert "not a Tera-MIND network" in refusal(tmp_path / "other.safetensors")


def test_tensors_that_do_not_fit_are_named(saved):
    bias = load_file(saved)["head.bias"]
    assert refusal(changed(saved, head__bias=None)).endswith("head.bias is missing")
    assert refusal(changed(saved, tail=bias)).endswith("tail is not part of the network")
    longer = refusal(changed(saved, head__bias=torch.ones(3)))
    assert longer.endswith("head.bias is (3,), should be (2,)")
    for value in (float("nan"), float("inf")):
        spoiled = refusal(changed(saved, head__bias=torch.tensor([1.0, value])))
        assert spoiled.endswith("head.bias holds NaN or infinity")
    assert refusal(changed(saved, head__bias=None, tail=bias)).endswith("is missing and 1 more")


def test_published_weights_that_do_not_fit_are_named(goldens, tmp_path):
    weights = load_file(goldens / "z4_all_64_weights.safetensors")
    path = tmp_path / "bare.safetensors"
    save_file({k: v for k, v in weights.items() if k != "out.2.bias"}, path)
    assert refusal(path).endswith("head.bias is missing")
    save_file(weights | {"out.2.bias": torch.full((2,), float("nan"))}, path)
    assert refusal(path).endswith("head.bias holds NaN or infinity")
    save_file(weights | {"out.3.bias": torch.ones(2)}, path)
    assert refusal(path).endswith("out.3.bias is not part of the network")


class Payload:
    """Unpickling this makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("write", [torch.save, lambda x, p: p.write_bytes(pickle.dumps(x, 2))])
def test_code_in_a_pickle_does_not_run(tmp_path, write):
    write({"state_dict": Payload(tmp_path / "ran")}, tmp_path / "last.ckpt")
    assert "would need to run its pickle code" in refusal(tmp_path / "last.ckpt")
    assert not (tmp_path / "ran").exists()
    with (tmp_path / "control").open("wb") as file:
        pickle.dump(Payload(tmp_path / "ran"), file)
    pickle.loads((tmp_path / "control").read_bytes())
    assert (tmp_path / "ran").exists()


def test_a_zip_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "last.ckpt", "w") as file:
        file.writestr("notes/readme.txt", "no weights here")
    assert "truncated or not a checkpoint" in refusal(tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    "content",
    [[1, 2], {"weights": {}}, {"state_dict": {"a": 1}}, {"state_dict": {1: torch.ones(1)}}],
)
def test_a_pickle_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "last.ckpt")
    assert refusal(tmp_path / "last.ckpt").endswith("holds no `state_dict` of tensors")


def published_folder(tmp_path, goldens, name):
    weights = load_file(goldens / "z4_all_64_weights.safetensors")
    (tmp_path / name).mkdir()
    state = {f"model.{key}": value for key, value in weights.items()}
    state["ema_model.out.2.bias"] = torch.ones(2)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / name / "last.ckpt")
    return tmp_path / name


def test_a_published_folder_loads_by_its_own_weights(tmp_path, goldens):
    folder = published_folder(tmp_path, goldens, "638850_64_6_all_4_ours")
    bare = load_network(goldens / "z4_all_64_weights.safetensors")
    again = load_network(folder)
    assert again.spec == load_network(folder / "last.ckpt").spec == bare.spec
    for key, value in bare.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


@pytest.mark.parametrize(
    ("name", "contradiction"),
    [
        ("638850_32_6_all_4_ours", "patch 32 in the name, 64 in the weights"),
        ("638850_64_229_all_4_ours", "genes 229 in the name, 6 in the weights"),
        ("638850_64_6_DAPI_4_ours", "stains 1 in the name, 2 in the weights"),
        ("638850_64_6_all_16_ours", "sections 16 in the name, 4 in the weights"),
    ],
)
def test_a_folder_name_that_contradicts_the_weights_is_refused(
    tmp_path, goldens, monkeypatch, name, contradiction
):
    folder = published_folder(tmp_path, goldens, name)
    assert refusal(folder / "last.ckpt").endswith(f"contradicts the weights: {contradiction}")
    monkeypatch.chdir(folder)
    assert contradiction in refusal("last.ckpt")


@pytest.mark.parametrize("record", ["", "{", "3", "null", "[]", "{}", '"patch"'])
def test_a_record_that_is_none_is_refused(saved, record):
    assert "its teramind record is not readable" in refusal(recorded(saved, record))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("patch", 33),
        ("patch", 64.0),
        ("patch", "64"),
        ("patch", 2**40),
        ("sections", 5),
        ("sections", True),
        ("base", 3),
        ("base", 10**9),
        ("genes", -1),
        ("embed", None),
        ("stains", "all"),
        ("stains", []),
        ("panel", ["Gad1"]),
        ("panel", ["Gad1", "Slc17a7", "Gad1"]),
        ("panel", [1, 2, 3]),
        ("pixel_size_um", "0.5"),
        ("pixel_size_um", -1),
        ("training", "long"),
        ("licence", 4),
        ("colour", "red"),
    ],
)
def test_nonsense_in_a_record_is_refused(saved, field, value):
    record = read_spec(saved).to_dict() | {field: value}
    path = recorded(saved, json.dumps(record))
    assert "its teramind record is not readable" in refusal(path)
