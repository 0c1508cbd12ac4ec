"""Every published variant generates: windows of 1 to 16 sections, patches, stains, gene lists."""

import numpy as np
import pytest
import torch

from teramind.engine.region import generate_region
from teramind.expression.raster_writer import RasterWriter
from teramind.geometry import Rect, Windows
from teramind.network import Network, NetworkSpec
from teramind.network.checkpoint import load_network
from teramind.network.convert import convert_checkpoint
from teramind.network.published import published_modules

PLANES = 6
VARIANTS = [  # S, P, stains, genes
    (1, 64, "all", 81),
    (1, 32, "PolyT", 229),
    (4, 32, "DAPI", 229),
    (4, 64, "all", 500),
    (4, 128, "all", 229),
    (8, 64, "all", 229),
    (8, 32, "DAPI", 500),
    (16, 32, "all", 229),
    (16, 64, "PolyT", 229),
]


def write_published(folder, spec):
    """Random weights as the release stores them: flat names, norms of images as (1, c, 1, 1)."""
    torch.manual_seed(0)
    theirs = published_modules(spec)
    tensors = {}
    for key, value in Network(spec).state_dict().items():
        module, _, parameter = key.rpartition(".")
        tensors[f"model.{theirs[module]}.{parameter}"] = value
    folder.mkdir()
    torch.save({"state_dict": tensors, "global_step": 1}, folder / "last.ckpt")


def write_raster(path, panel, extent):
    """Molecules everywhere, in every section."""
    random = np.random.default_rng(2)
    n = 3000
    with RasterWriter(path, panel=panel, sections=PLANES, extent=extent) as writer:
        writer.add(
            section=random.integers(0, PLANES, n),
            y=random.integers(extent.y, extent.bottom, n),
            x=random.integers(extent.x, extent.right, n),
            gene=random.integers(0, len(panel), n),
        )


@pytest.mark.parametrize(("sections", "patch", "stain", "genes"), VARIANTS)
def test_a_published_variant_generates(tmp_path, sections, patch, stain, genes):
    stains = {"all": ("DAPI", "PolyT")}.get(stain, (stain,))
    panel = tuple(f"gene_{i}" for i in range(500))
    sizes = {"patch": patch, "sections": sections, "stains": stains}
    spec = NetworkSpec(genes=genes, base=2, embed=8, **sizes)
    folder = tmp_path / f"638850_{patch}_{genes}_{stain}_{sections}_ours"
    write_published(folder, spec)
    convert_checkpoint(folder, tmp_path / "made.safetensors", panel=panel, **sizes)
    network = load_network(tmp_path / "made.safetensors")
    assert network.spec.panel == panel[:genes]
    extent = Rect(0, 0, 2 * patch, 2 * patch)
    write_raster(tmp_path / "raster", panel, extent)
    volume = generate_region(network, tmp_path / "raster", steps=1)
    lost = {1: 0, 4: 0, 8: 2, 16: 2}[sections]  # the outermost section at each end
    assert volume.shape == (len(stains), PLANES - lost, *extent[2:])
    assert Windows(sections=sections, planes=50).generated == 50 - lost
    assert all(np.ptp(section) > 0 for stack in volume for section in stack)
