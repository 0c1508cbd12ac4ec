"""The undisturbed run that every fault is measured by, and the count of jobs that ran again."""

import pytest
from small_project import SLIDE, SmallProject

AGAIN = []


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A project that ran to its end, states kept; tests work on copies."""
    project = SmallProject.new(tmp_path_factory.mktemp("undisturbed"))
    project.run("--notemp", SLIDE)
    return project


@pytest.fixture
def same_volume(undisturbed, request):
    """Function that finishes a disturbed project, compares its bytes and notes the jobs it took."""

    def check(project):
        number = project.finish()
        assert project.volume() == undisturbed.volume()
        AGAIN.append((request.node.name, number))

    return check


def pytest_terminal_summary(terminalreporter):
    """Say how many jobs ran again after each fault."""
    if AGAIN:
        terminalreporter.section("jobs that ran again after a fault, of 11")
    for name, number in AGAIN:
        terminalreporter.write_line(f"{number:3d}  {name}")
