"""What several test files share: golden numbers, real data, a tiny network."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Tests run side by side, one process a core: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The tests' web servers run on this machine: no proxy stands between.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
# How long an example takes says nothing on a machine that does other things, too.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

LONGEST = (
    "test_workflow_training",
    "test_workflow",
    "test_region",
    "test_workflow_errors",
    "test_workflow_published",
)
"""The files that take longest, the longest first."""

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items):
    """Begin with the longest files, so that no process ends long after the other."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def temporary_files(tmp_path_factory):
    """What libraries and killed processes leave behind goes when the tests' own files go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        yield


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
