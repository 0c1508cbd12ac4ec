"""What a job says of errors that are not its program's: a line each, and no traceback."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from workflow_project import config_with

from teramind.run.job import describe

JOB = """
import sys
from types import SimpleNamespace
import yaml
from teramind.run.job import job

asked = yaml.safe_load(sys.stdin)
with job(SimpleNamespace(config=asked, output=[], params=[], log=["job.log"])):
    raise MemoryError
"""


def fill_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(
    "fill",
    [fill_a_gpu, lambda: np.empty(2**50), lambda: torch.empty(2**50)],
    ids=["gpu", "numpy", "torch"],
)
def test_whoever_runs_out_of_memory_is_told_what_takes_less(fill):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        fill()
    line = describe(caught.value)
    assert line is not None and line.startswith("out of memory; ")
    assert "generate.slab" in line and "train.batch" in line


def test_a_defect_is_no_lack_of_memory():
    assert describe(RuntimeError("shapes differ")) is None


def test_a_job_that_runs_out_of_memory_ends_with_a_line(tmp_path):
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", JOB],
        cwd=tmp_path,
        input=yaml.safe_dump(config_with()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: out of memory; ")
    assert (tmp_path / "job.log").read_text() == done.stderr
