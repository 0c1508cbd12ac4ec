"""Two runs at once, settings that change between runs, clocks that jump."""

import os
import time
from collections import Counter

import pytest
from small_project import SLIDE, end, nth_job
from workflow_project import planned

pytestmark = pytest.mark.faults


def test_a_second_run_on_the_same_results_is_refused(undisturbed, same_volume, tmp_path):
    project = undisturbed.before("generate", tmp_path / "project")
    first = project.begin()
    nth_job(first, "generate", 1)
    status, printed = project.attempt("--notemp", SLIDE)
    assert status != 0
    assert "--unlock" in printed
    end(first)
    assert first.returncode == 0
    assert project.volume() == undisturbed.volume()
    same_volume(project)


def test_settings_that_the_voxels_depend_on_are_refused(undisturbed, same_volume, tmp_path):
    project = undisturbed.before("stitch", tmp_path / "project")
    settings = (project.folder / "config.yaml").read_text()
    (project.folder / "config.yaml").write_text(settings.replace("steps: 2", "steps: 4"))
    assert "generate.steps was 2, is now 4" in project.fail(SLIDE)
    (project.folder / "config.yaml").write_text(settings)
    same_volume(project)


def test_a_changed_title_makes_the_slides_again_and_says_so(undisturbed, tmp_path):
    project = undisturbed.copy(tmp_path / "project")
    settings = (project.folder / "config.yaml").read_text()
    (project.folder / "config.yaml").write_text(settings.replace("Tiny", "Other"))
    printed = project.run("--notemp", SLIDE)
    assert "note: title was 'Tiny', is now 'Other'" in printed
    assert planned(printed) == Counter(export_wsi=1)
    assert "note: " not in project.run("--notemp", SLIDE)
    (project.folder / "config.yaml").write_text(settings)
    project.run("--notemp", SLIDE)
    assert project.volume() == undisturbed.volume()


FIRST_PHASE = [f"out/work/p000/w00_r00_c0{col}.safetensors" for col in (0, 1)]


def date_first_phase(project, hours):
    """Give the states of the first phase a time so far from now."""
    when = time.time() + hours * 3600
    for state in FIRST_PHASE:
        os.utime(project.folder / state, (when, when))


def test_a_clock_that_jumped_ahead_between_two_phases(undisturbed, same_volume, tmp_path):
    project = undisturbed.before("generate", tmp_path / "project")
    project.run("--notemp", *FIRST_PHASE)
    date_first_phase(project, hours=-30)
    same_volume(project)


def test_a_clock_that_jumped_back_is_told_and_costs_no_more_than_the_job(
    undisturbed, same_volume, tmp_path
):
    project = undisturbed.before("generate", tmp_path / "project")
    project.run("--notemp", *FIRST_PHASE)
    date_first_phase(project, hours=30)
    status, printed = project.attempt("--notemp", SLIDE)
    assert status
    assert "has older modification time" in printed
    assert "clock skew" in printed
    date_first_phase(project, hours=0)
    assert planned(project.run("--notemp", "--dry-run", SLIDE))["generate_p000"] == 0
    same_volume(project)


def test_inputs_dated_in_the_future(undisturbed, same_volume, tmp_path):
    project = undisturbed.copy(tmp_path / "project")
    later = time.time() + 30 * 3600
    os.utime(project.folder / "molecules.csv", (later, later))
    same_volume(project)
