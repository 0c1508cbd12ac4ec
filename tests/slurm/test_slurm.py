"""The profile on a real Slurm: what jobs ask for, where their logs are, and how they end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from cluster import output, wait_for
from small_project import SLIDE, SmallProject, end
from test_environments import RULE_PARTS
from test_workflow_training import TRAINING
from workflow_project import ROOT, Project, planned

from teramind.config import parse_config
from teramind.phantom import PANEL
from teramind.run.job_memory import slab_job_megabytes, stitch_megabytes

pytestmark = pytest.mark.slurm

PROFILE = ("--profile", str(ROOT / "slurm"), "--slurm-init-seconds-before-status-checks", "3")
"""The profile; polling from the third second on, because small jobs are short."""

LOCAL = {"all", "create_volume"}
"""Rules that run where Snakemake runs."""


def known():
    """Numbers of the jobs that Slurm knows."""
    return set(re.findall(r"JobId=(\d+)", output("scontrol", "show", "job", "--oneliner")))


def submitted(before):
    """What Slurm says of the jobs since `before`: rule -> one dictionary per job."""
    found = {}
    for line in output("scontrol", "show", "job", "--oneliner").splitlines():
        fields = dict(field.partition("=")[::2] for field in line.split())
        if "JobId" in fields and fields["JobId"] not in before:
            rule = re.match(r"rule_(.+?)(_wildcards_.*)?$", fields["Comment"])[1]
            found.setdefault(rule, []).append(fields)
    return found


def megabytes(text):
    """2000M or 4G -> MB."""
    return int(text[:-1]) * {"M": 1, "G": 1024}[text[-1]]


def minutes(text):
    """1-02:30:00 -> minutes."""
    days, _, clock = text.rpartition("-")
    hours, part, _ = map(int, clock.split(":"))
    return int(days or 0) * 1440 + hours * 60 + part


def asked(rule, config):
    """What the rule file says that a rule needs, in numbers or by what grows with the slab."""
    directive = RULE_PARTS["generate" if rule.startswith("generate") else rule]["resources"]
    found = re.findall(r"(mem_mb|runtime)=(?:growing\()?(\d+)[,)]", directive)
    numbers = {name: int(number) for name, number in found}
    if rule.startswith("generate_p"):
        numbers["mem_mb"] = slab_job_megabytes(config, int(rule.removeprefix("generate_p")))
        numbers["runtime"] = config.generate.minutes
    if rule == "stitch":
        numbers["mem_mb"] = stitch_megabytes(config)
    return numbers


def running(script):
    """Jobs of Slurm that run a rule whose name begins so."""
    lines = output("squeue", "--noheader", "--states=RUNNING", "--format=%i %k").splitlines()
    return [line.split()[0] for line in lines if f"rule_{script}" in line]


def started(process, script):
    """Wait until Slurm runs a job of a script; its number."""
    assert wait_for(lambda: running(script) or process.poll() is not None, seconds=600)
    assert process.poll() is None, process.communicate()[0]
    return running(script)[0]


def test_jobs_ask_slurm_for_what_their_rules_say(local, tmp_path):
    project = SmallProject.new(tmp_path / "project")
    settings = (project.folder / "config.yaml").read_text()
    (project.folder / "config.yaml").write_text(
        settings.replace("phases: 2", "phases: 2\n  gpus: 1")
    )
    before = known()
    plan = planned(project.run(*PROFILE, SLIDE))
    jobs = submitted(before)
    assert {rule: len(found) for rule, found in jobs.items()} == {
        rule: number for rule, number in plan.items() if rule not in LOCAL
    }
    config = parse_config(yaml.safe_load((project.folder / "config.yaml").read_text()))
    for rule, found in jobs.items():
        for job in found:
            assert job["JobState"] == "COMPLETED"
            got = {"mem_mb": megabytes(job["MinMemoryNode"]), "runtime": minutes(job["TimeLimit"])}
            assert got == asked(rule, config)
            assert ("gpu:1" in job.get("TresPerJob", "")) == rule.startswith("generate")
            assert "gpu" not in job.get("TresPerNode", "")
    assert project.volume() == local.volume()
    logs = {path.name for path in project.results.glob("logs/*")}
    assert logs == set(plan)
    assert not list(project.folder.glob("logs/slurm/**/*.log"))  # of failed jobs only


@pytest.mark.slow
def test_a_cancelled_job_is_submitted_again_with_more(local, tmp_path):
    project, before = local.before("stitch", tmp_path / "project"), known()
    process = project.begin(*PROFILE)
    output("scancel", started(process, "stitch"))
    printed = end(process)
    assert process.returncode == 0, printed
    assert project.volume() == local.volume()
    states = Counter(job["JobState"] for job in submitted(before)["stitch"])
    assert states == Counter(COMPLETED=2, CANCELLED=1)
    again = max(submitted(before)["stitch"], key=lambda job: int(job["JobId"]))
    first = min(submitted(before)["stitch"], key=lambda job: int(job["JobId"]))
    assert megabytes(again["MinMemoryNode"]) == 2 * megabytes(first["MinMemoryNode"])
    assert minutes(again["TimeLimit"]) == 2 * minutes(first["TimeLimit"])
    assert "stitch" in " ".join(str(path) for path in project.folder.glob("logs/slurm/**/*.log"))


@pytest.mark.slow
def test_a_job_past_its_memory_is_submitted_again_with_more(local, tmp_path):
    project, before = local.before("export_wsi", tmp_path / "project"), known()
    project.run(
        *PROFILE, "--notemp", "--set-resources", "export_wsi:mem_mb=60*8**(attempt-1)", "--", SLIDE
    )
    found = submitted(before)["export_wsi"]
    assert [job["JobState"] for job in found][-1] == "COMPLETED"
    assert found[0]["JobState"] in {"OUT_OF_MEMORY", "CANCELLED", "FAILED"}
    assert len(found) > 1
    assert project.volume() == local.volume()


@pytest.mark.slow
def test_a_job_past_its_time_is_submitted_again_with_more(local, tmp_path):
    project, before = local.before("export_wsi", tmp_path / "project"), known()
    process = project.begin(*PROFILE, "--set-resources", "export_wsi:runtime=attempt", "--")
    started(process, "export_wsi")
    pause("export_wsi")
    printed = end(process)
    assert process.returncode == 0, printed
    assert [job["JobState"] for job in submitted(before)["export_wsi"]] == ["TIMEOUT", "COMPLETED"]
    assert project.volume() == local.volume()


def pause(script):
    """Stop the process that runs a script, wherever it runs."""
    found = []
    while not found:
        found = output("pgrep", "--full", f"^[^ ]*python[^ ]* [^ ]*{script}.py$").split()
        time.sleep(0.05)
    os.kill(int(found[0]), signal.SIGSTOP)


@pytest.mark.slow
def test_jobs_outlive_a_killed_snakemake_and_the_next_run_ends_well(local, tmp_path):
    project = local.before("stitch", tmp_path / "project")
    process = project.begin(*PROFILE)
    started(process, "stitch")
    process.kill()
    process.communicate()
    project.run("--unlock")
    project.run(*PROFILE, "--notemp", SLIDE)
    assert wait_for(lambda: not output("squeue", "--noheader"), seconds=600)
    assert project.volume() == local.volume()


@pytest.mark.slow
def test_the_bundled_example_runs_verbatim(tmp_path):
    files = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    for name in files:
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    before, environment = known(), os.environ.copy()
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment.pop("PYTHONPATH", None)
    command = ["snakemake", "--profile", "slurm"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    plan = planned(run.stderr)
    jobs = {rule: len(found) for rule, found in submitted(before).items()}
    assert jobs == {rule: number for rule, number in plan.items() if rule not in LOCAL}
    assert (tmp_path / "results/example/report.html").exists()


@pytest.mark.slow
def test_training_may_end_before_its_last_round(tmp_path):
    """Its jobs read the workflow anew, and find their rounds though the network is there."""
    train = TRAINING["train"] | {"steps": 2, "rounds": 4, "minutes": 1e-9}  # a step a round
    project, before = Project(tmp_path, **TRAINING | {"train": train}), known()
    (tmp_path / "panel.txt").write_text("\n".join(PANEL) + "\n")
    project.run(*PROFILE, "--", "out/train/checkpoint.safetensors")
    jobs = submitted(before)
    rounds = ["train_r000", "train_r001", "train_r002", "train"]
    assert [job["JobState"] for rule in rounds for job in jobs[rule]] == 4 * ["COMPLETED"]
    records = [json.loads(p.read_text()) for p in project.results.glob("work/train/round_*.json")]
    assert sorted(record["at"] for record in records) == ["step 1 of 2", *2 * ["step 2 of 2"]]
