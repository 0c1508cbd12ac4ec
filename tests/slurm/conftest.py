"""One Slurm for all tests of this folder."""

import pytest
from cluster import cluster, missing
from small_project import SLIDE, SmallProject


@pytest.fixture(scope="session", autouse=True)
def slurm():
    """Bring the cluster up, and down again at the end; skip everything where it cannot be."""
    if reason := missing():
        pytest.skip(f"no Slurm here: {reason}")
    with cluster():
        yield


@pytest.fixture(scope="session")
def local(tmp_path_factory):
    """The small project, run without Slurm; states kept. Tests work on copies."""
    project = SmallProject.new(tmp_path_factory.mktemp("local"))
    project.run("--notemp", SLIDE)
    return project
