"""The profile where Slurm keeps accounts; everywhere else in this folder it does without."""

import accounting
import pytest
from cluster import cluster, output, up
from small_project import SLIDE, end
from test_slurm import PROFILE, started

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def accounts():
    """The same cluster with accounting; without, again, for the tests that follow."""
    if reason := accounting.missing():
        pytest.skip(f"no accounting here: {reason}")
    try:
        with cluster(with_accounting=True):
            yield
    finally:
        up()


def ended():
    """How the jobs ended, by the accounts, in the order of their submission."""
    states = ("--allocations", "--noheader", "--parsable2", "--format=State")
    return output("sacct", *states).splitlines()


def test_a_cancelled_job_is_submitted_again(local, tmp_path):
    project = local.before("export_wsi", tmp_path / "project")
    process = project.begin(*PROFILE)
    output("scancel", started(process, "export_wsi"))
    printed = end(process)
    assert process.returncode == 0, printed
    assert project.volume() == local.volume()
    assert ended() == ["CANCELLED by 0", "COMPLETED"]


def test_sacct_may_be_asked_instead_of_squeue(local, tmp_path):
    project = local.before("export_wsi", tmp_path / "project")
    project.run(*PROFILE, "--slurm-status-command", "sacct", "--notemp", "--", SLIDE)
    assert project.volume() == local.volume()
    assert ended()[-1] == "COMPLETED"
