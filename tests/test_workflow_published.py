"""What the published scripts make, by a config and one command."""

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
import zarr
from file_server import serving
from safetensors.numpy import load_file
from workflow_project import ROOT, Project

from teramind.engine.state import load_state
from teramind.expression.panel import read_panel
from teramind.network.spec import read_spec


def test_the_published_region_begins_as_published(shared, tmp_path):
    """`--hst 256 --wst 512 --hnm 2 --wnm 3` on tiny weights: the state after the first step.

    `test_region` holds all 15 steps of the same chain.
    """
    project = Project(
        tmp_path,
        expression={
            "kind": "tiles",
            "source": str(shared("goldens/chain_genes")),
            "panel": str(ROOT / "resources/panels/mouse_500.txt"),
        },
        plane={
            **{"y": 256, "x": 512, "height": 512, "width": 768, "sections": 4},
            **{"pixel_size_um": 0.108, "section_spacing_um": 200},
        },
        region={"tiles": [256, 512, 2, 3]},
        bounds="region",
        network={
            "checkpoint": str(shared("goldens/z4_all_64_weights.safetensors")),
            "patch": 64,
            "sections": 4,
        },
        generate={"slab": 768, "steps": 15, "phases": 15, "noise": "published"},
    )
    states = [f"out/work/p000/w{window:02d}_r00_c00.safetensors" for window in range(2)]
    project.run("--notemp", "--", *states)
    chain = load_file(shared("goldens/z4_all_64_chain.safetensors"))
    wanted = chain["state_after_1"].astype(np.float32).reshape(2, 4, 512, 768)
    for window, path in enumerate(states):
        _, state = load_state(tmp_path / path, window=window, identity={})
        off = state.reshape(2, 2, 512, 768) - wanted[:, 2 * window : 2 * window + 2]
        assert np.abs(off).max() <= 2e-3


def archive_of(files):
    """Bytes of a zip with these members."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def tile(row, column, molecules):
    """Name and bytes of an expression tile of 4 sections x 500 genes."""
    y, x = 256 * row, 256 * column
    name = f"{y}_{y + 256}_{x}_{x + 256}_{y - 128}_{y + 384}_{x - 128}_{x + 384}.npz"
    at, counts = molecules
    coords = at - np.array([[y - 128], [x - 128], [0]])
    framed = ((coords >= 0) & (coords < [[512], [512], [2000]])).all(0)
    content = io.BytesIO()
    np.savez_compressed(
        content,
        coords=coords[:, framed],
        data=counts[framed],
        shape=np.array([512, 512, 2000]),
        fill_value=np.array(0, np.uint16),
    )
    return f"gene_638850/{name}", content.getvalue()


@pytest.fixture(scope="module")
def brain():
    """Archive of 2 x 3 tiles, molecules of the first ten genes."""
    random = np.random.default_rng(0)
    y, x = random.integers(128, 896, 3000), random.integers(128, 1152, 3000)
    channel = 500 * random.integers(0, 4, 3000) + random.integers(0, 10, 3000)
    molecules = (np.stack([y, x, channel]), np.ones(3000, np.uint16))
    places = [(row, column) for row in (1, 2) for column in (1, 2, 3)]
    return archive_of(dict(tile(row, column, molecules) for row, column in places))


def published_project(folder, server, **changes):
    """A project that asks for published files by name."""
    return Project(
        folder,
        **{
            "expression": {
                "kind": "tiles",
                "source": "published:638850",
                "panel": str(ROOT / "resources/panels/mouse_500.txt"),
            },
            "plane": {
                **{"y": 256, "x": 256, "height": 512, "width": 768, "sections": 4},
                **{"pixel_size_um": 0.108, "section_spacing_um": 200},
            },
            "region": {"um": [27.648, 27.648, 13.824, 13.824]},  # 256, 256, 128, 128 pixels
            "network": {"checkpoint": "published:main", "patch": 64, "sections": 4},
            "generate": {"slab": 128, "steps": 2, "phases": 1},
            "download": {"url": server.url, "folder": "kept"},
        }
        | changes,
    )


def test_a_published_brain_is_fetched_by_name_converted_and_drawn(shared, brain, tmp_path):
    checkpoint = shared("goldens/638850_64_6_all_4_ours/last.ckpt").read_bytes()
    main = archive_of(
        {
            "main/638850_64_6_all_4_ours/last.ckpt": checkpoint,
            "main/638850_64_6_all_8_ours/last.ckpt": b"another variant",
            "../../638850_64_6_DAPI_4_ours/last.ckpt": b"out of the folder",
            "main/result.tif": b"a picture",
        }
    )
    with serving({"gene_638850.zip": brain, "main.zip": main}) as server:
        project = published_project(tmp_path, server)
        server.cuts = [1000]
        project.run()
        assert sorted({name for name, _ in server.requests}) == ["gene_638850.zip", "main.zip"]
        for archive in ("gene_638850.zip", "main.zip"):
            record = json.loads((project.results / f"download/{archive}.json").read_text())
            assert record["sha256"] == hashlib.sha256(server.files[archive]).hexdigest()
        (tmp_path / "kept").rename(tmp_path / "moved")
        elsewhere = published_project(
            tmp_path, server, download={"url": server.url, "folder": "moved"}
        )
        assert "Nothing to be done" in elsewhere.run()
        (tmp_path / "moved").rename(tmp_path / "kept")
    asked = {"url": server.url, "folder": "kept", "sha256": {"main.zip": 64 * "0"}}
    line = published_project(tmp_path, server, download=asked).fail()
    assert line.startswith(f"error: download.sha256: main.zip: got {64 * '0'}, but the sum of what")
    spec = read_spec(project.results / "checkpoint.safetensors")
    assert spec.panel == read_panel(ROOT / "resources/panels/mouse_500.txt")[:6]
    assert spec.training == {"published": "638850_64_6_all_4_ours"}
    summary = json.loads((project.results / "expression/summary.json").read_text())
    assert (summary["panel_genes"], summary["panel_genes_matched"]) == (6, 6)  # read, of 500
    assert summary["tiles"] == 6 - 2  # the third column lies beyond what the region reads
    volume = zarr.open_group(project.results / "volume/volume.zarr", mode="r")["0"]
    assert volume.shape == (2, 4, 128, 128) and np.ptp(volume[:]) > 0
    kept = {path.name for path in (tmp_path / "kept").iterdir()}
    assert kept == {
        f"{name}.zip{end}" for name in ("main", "gene_638850") for end in ("", ".sha256")
    }
    assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} <= {
        *("config.yaml", "kept", "out", "molecules.csv", "network.safetensors")
    }


def test_a_region_outside_the_tiles_is_refused_with_their_extent(shared, brain, tmp_path):
    with serving({"gene_638850.zip": brain}) as server:
        plane = {"y": 256, "x": 256, "height": 1024, "width": 768, "sections": 4}
        plane |= {"pixel_size_um": 0.108, "section_spacing_um": 200}
        project = published_project(
            tmp_path,
            server,
            plane=plane,
            region={"tiles": [768, 256, 1, 1]},
            network={
                "checkpoint": str(shared("goldens/z4_all_64_weights.safetensors")),
                "patch": 64,
                "sections": 4,
            },
        )
        line = project.fail("--until", "bin_expression")
    assert "y 768..1023, x 256..511 pixels lie outside the data kept/gene_638850.zip" in line
    assert line.endswith("which cover y 256..767, x 256..1023 pixels")
