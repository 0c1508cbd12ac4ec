"""Jobs and Snakemake itself killed at random moments: the next run ends with the same bytes."""

import random
import time
from contextlib import suppress
from itertools import product

import psutil
import pytest
from small_project import SmallProject, end, jobs_of, kill_alone, nth_job

from teramind.files import remove_leftovers

JOBS = {"generate": 4, "stitch": 2, "export_wsi": 1}
"""Script -> how many of its jobs a run has."""


@pytest.mark.faults
@pytest.mark.parametrize(("script", "seed"), [*product(JOBS, range(20))])
def test_a_killed_job_is_made_again(undisturbed, same_volume, tmp_path, script, seed):
    rng, longest = random.Random(f"{script} {seed}"), undisturbed.seconds(script)
    while True:
        project = undisturbed.before(script, tmp_path / f"{longest}")
        process = project.begin()
        job = nth_job(process, script, rng.randint(1, JOBS[script]))
        time.sleep(rng.uniform(0, longest))
        with suppress(psutil.NoSuchProcess):
            job.kill()
        end(process)
        if process.returncode:
            break
        longest /= 2  # the moment came after its end
    same_volume(project)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(20))
def test_snakemake_killed_while_its_jobs_go_on(undisturbed, same_volume, tmp_path, seed):
    rng = random.Random(f"snakemake {seed}")
    project = SmallProject.new(tmp_path / "project")
    process = project.begin()
    job = nth_job(process, "", rng.randint(1, 11))
    time.sleep(rng.uniform(0, undisturbed.seconds("generate")))
    assert jobs_of(process) or not job.is_running()
    kill_alone(process)
    same_volume(project)
    remove_leftovers(project.results)
    assert not project.leftovers()
