"""A published checkpoint is found in its archive and says what it is from then on."""

import io
import shutil
import zipfile

import pytest
import torch

from teramind.archives import extract, open_zip
from teramind.errors import UserError
from teramind.network import load_network
from teramind.network.convert import convert_checkpoint

FOLDER = "638850_64_6_all_4_ours"
SIZES = {"patch": 64, "sections": 4, "stains": ("DAPI", "PolyT"), "mouse": "638850"}


def pack(path, files):
    """A zip with these members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def golden(shared):
    return shared(f"goldens/{FOLDER}/last.ckpt")


def test_in_an_archive_beside_other_variants_the_right_one_is_taken(golden, tmp_path):
    members = {
        f"main/{FOLDER}/last.ckpt": golden.read_bytes(),
        "main/638850_64_6_all_8_ours/last.ckpt": b"other sections",
        "main/638850_32_6_all_4_ours/last.ckpt": b"other patches",
        "main/609882_64_6_all_4_ours/last.ckpt": b"another mouse",
        "../../638850_64_6_DAPI_4_ours/last.ckpt": b"out of the folder",
        "main/volume.tif": b"a picture",
    }
    source = pack(tmp_path / "main.zip", members)
    panel = tuple("abcdefgh")
    convert_checkpoint(source, tmp_path / "made.safetensors", panel=panel, **SIZES)
    made, wanted = load_network(tmp_path / "made.safetensors"), load_network(golden)
    assert made.spec.panel == panel[:6]
    assert made.spec.training == {"published": FOLDER}
    for key, value in wanted.state_dict().items():
        assert torch.equal(made.state_dict()[key], value)
    assert {path.name for path in tmp_path.iterdir()} == {"main.zip", "made.safetensors"}


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"main/638850_64_6_all_8_ours/last.ckpt": b"x"}, "638850_64_6_all_8_ours, of which 0 for"),
        ({"main/609882_64_6_all_4_ours/last.ckpt": b"x"}, "of which 0 for mouse 638850, patch 64"),
        ({f"{k}/{FOLDER}/last.ckpt": b"x" for k in "ab"}, "of which 2 for mouse 638850"),
        ({"result.tif": b"x"}, "holds no last.ckpt, of which 0"),
        ({f"{FOLDER}/last.ckpt": b"x"}, f"main.zip/{FOLDER}/last.ckpt: no checkpoint"),
    ],
    ids=["another variant", "another mouse", "two", "none", "no checkpoint"],
)
def test_an_archive_without_the_network_is_refused(tmp_path, files, line):
    source = pack(tmp_path / "main.zip", files)
    with pytest.raises(UserError, match=line):
        convert_checkpoint(source, tmp_path / "made.safetensors", **SIZES)
    assert [path.name for path in tmp_path.iterdir()] == ["main.zip"]


def test_a_folder_name_that_contradicts_the_weights_is_refused(golden, tmp_path):
    folder = tmp_path / "638850_64_229_all_4_ours"
    folder.mkdir()
    shutil.copy(golden, folder)
    with pytest.raises(UserError, match="contradicts the weights: genes 229 in the name, 6 in the"):
        convert_checkpoint(folder, tmp_path / "made.safetensors", **SIZES)
    assert not (tmp_path / "made.safetensors").exists()


def test_sizes_that_the_weights_contradict_are_refused(golden, tmp_path):
    shutil.copy(golden, tmp_path / "last.ckpt")  # in a folder whose name says nothing
    sizes = {"patch": 32, "sections": 4, "stains": ["DAPI"]}
    with pytest.raises(UserError) as caught:
        convert_checkpoint(tmp_path / "last.ckpt", tmp_path / "made.safetensors", **sizes)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "network.patch",
        "network.stains",
    ]
    assert not (tmp_path / "made.safetensors").exists()


class Harm:
    """Unpickles to a call."""

    def __reduce__(self):
        return print, ("harm done",)


def test_a_checkpoint_cannot_run_code(tmp_path, capsys):
    content = io.BytesIO()
    torch.save({"state_dict": {"model.a": Harm()}}, content)
    source = pack(tmp_path / "main.zip", {f"{FOLDER}/last.ckpt": content.getvalue()})
    with pytest.raises(UserError, match="would need to run its pickle code"):
        convert_checkpoint(source, tmp_path / "made.safetensors", **SIZES)
    assert "harm" not in capsys.readouterr().out
    content.seek(0)
    torch.load(content, weights_only=False)
    assert "harm done" in capsys.readouterr().out


def test_a_member_that_unpacks_to_too_much_is_refused(tmp_path):
    source = pack(tmp_path / "bomb.zip", {"last.ckpt": bytes(1 << 20)})
    with (
        open_zip(source) as archive,
        pytest.raises(UserError, match=r"last\.ckpt: unpacks to 1048576 bytes; 1000 at most"),
    ):
        extract(archive, archive.infolist()[0], tmp_path / "out", largest=1000)
    assert not (tmp_path / "out").exists()


def test_a_member_that_lies_about_its_size_is_refused(tmp_path):
    source = pack(tmp_path / "bomb.zip", {"last.ckpt": bytes(1 << 20)})
    with open_zip(source) as archive:
        (member,) = archive.infolist()
        member.file_size = 900
        with pytest.raises(UserError, match=r"last\.ckpt: damaged"):
            extract(archive, member, tmp_path / "out", largest=1000)
    assert not (tmp_path / "out").exists()


def test_a_damaged_member_is_refused(tmp_path):
    source = pack(tmp_path / "cut.zip", {"last.ckpt": bytes(range(256)) * 50})
    content = bytearray(source.read_bytes())
    content[60] ^= 1
    source.write_bytes(content)
    with open_zip(source) as archive, pytest.raises(UserError, match=r"last\.ckpt: damaged"):
        extract(archive, archive.infolist()[0], tmp_path / "out", largest=1 << 20)
    assert not (tmp_path / "out").exists()
