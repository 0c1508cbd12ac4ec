"""What several test files share: golden numbers, real data, a tiny network."""

import os
from pathlib import Path

import pytest

# Tests run side by side, one process a core: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def goldens():
    """Folder of the golden numbers that the repository carries."""
    return ROOT / "tests" / "data"


@pytest.fixture(scope="session")
def shared():
    """Function from a name to a path in the folder of real data beside the repository."""

    def find(name):
        path = ROOT.parent / "shared" / name
        if not path.exists():
            pytest.skip(f"needs {name} in the folder `shared` beside the repository")
        return path

    return find


@pytest.fixture(scope="session")
def tiny_spec():
    """The smallest network with two stains, two image sections and three genes."""
    from teramind.network import NetworkSpec

    return NetworkSpec(
        patch=32,
        sections=4,
        stains=("DAPI", "PolyT"),
        genes=3,
        base=2,
        embed=8,
        panel=("Gad1", "Slc17a7", "Th"),
        pixel_size_um=0.5,
        section_spacing_um=10.0,
    )


@pytest.fixture
def tiny_network(tiny_spec):
    """A network of `tiny_spec` with random weights, ready for inference."""
    import torch

    from teramind.network import Network

    torch.manual_seed(0)
    return Network(tiny_spec).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def windows(tmp_path_factory, tiny_spec):
    """Training windows over two small sections of blobs (see `training_pair`)."""
    from training_pair import blob_windows

    return blob_windows(tmp_path_factory.mktemp("pair"), tiny_spec)
