"""What the published scripts make, by a config and one command."""

import numpy as np
import pytest
import zarr
from safetensors.numpy import load_file
from workflow_project import ROOT, Project

from teramind.diffusion import to_grey


@pytest.mark.slow
def test_the_published_region_is_repeated(shared, tmp_path):
    """`--hst 256 --wst 512 --hnm 2 --wnm 3` on tiny weights: the state after 15 steps."""
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
        generate={"slab": 768, "steps": 15, "phases": 1, "noise": "published"},
    )
    project.run("--notemp")
    chain = load_file(shared("goldens/z4_all_64_chain.safetensors"))
    wanted = chain["state_after_15"].astype(np.float32).reshape(2, 4, 512, 768)
    for window in range(2):
        saved = load_file(project.results / f"work/p000/w{window:02d}_r00_c00.safetensors")
        state = saved["state"].reshape(2, 2, 512, 768)
        assert np.abs(state - wanted[:, 2 * window : 2 * window + 2]).max() <= 2e-3
    volume = zarr.open_group(project.results / "volume/volume.zarr", mode="r")["0"][:]
    assert np.abs(volume.astype(int) - to_grey(wanted)).max() <= 1
