"""A plan's course, its search under limits, its machines and its command."""

import json
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from test_geometry import layouts
from workflow_project import ROOT, config_with, write_network

from teramind.__main__ import main
from teramind.config import parse_config
from teramind.config.reading import read_config
from teramind.errors import UserError
from teramind.geometry import Layout, Rect, Windows
from teramind.network import NetworkSpec
from teramind.plan.assume import Assumptions, assume
from teramind.plan.estimate import _dry_run_bytes, estimate
from teramind.plan.flops import PatchCost, patch_cost
from teramind.plan.hardware import Hardware, find_hardware, known_hardware, speed
from teramind.plan.lacks import _noise_seconds, lacks
from teramind.plan.search import Limits, applied, search
from teramind.plan.simulate import simulate
from teramind.plan.work import phase_work, wanted_work
from teramind.run import job_memory
from teramind.run.job_memory import slab_job_megabytes, stitch_megabytes

fast = settings(max_examples=60)
SPEC = NetworkSpec(32, 4, ("DAPI", "PolyT"), 3, 2, 8)
COST = PatchCost(
    genes=10**6, encode=10**8, decode=10**8, feature_bytes=10**5, gene_bytes=10**4, weights=10**6
)
MACHINE = Hardware(device="a box", gflops={"float32": 10.0}, startup_seconds=5)


def run_by(layout, workers):
    return simulate(
        layout,
        workers=workers,
        windows=len(layout.windows),
        seconds=lambda job: 1.0,
        state_bytes=lambda job: 1,
    )


@fast
@given(layouts(), st.integers(1, 5))
def test_a_course_runs_every_job_and_holds_no_more_states_than_there_are(layout, workers):
    states = sum(1 for phase in range(layout.phases) for _ in layout.slabs(phase))
    jobs = states + sum(1 for _ in layout.slabs(layout.phases - 1))
    alone, together = run_by(layout, 1), run_by(layout, workers)
    assert alone.seconds == jobs
    assert jobs / workers <= together.seconds <= jobs == together.worked
    assert 1 <= together.peak_bytes <= states


def test_states_live_for_a_few_rows_of_slabs_and_not_for_a_window():
    side, phases = 20, 3
    plane = Rect(0, 0, side * 64, side * 64)
    layout = Layout(plane, plane, 32, 64, Windows(sections=4, planes=6), 6, phases)
    assert run_by(layout, 4).peak_bytes < 2.5 * phases * side


def test_where_the_order_leaves_a_choice_more_states_are_expected():
    plane = Rect(0, 0, 128, 128)
    layout = Layout(plane, plane, 32, 64, Windows(sections=4, planes=2), 6, 1)
    # Stitching the first slab needs no state of the fourth and may come before it or after.
    assert run_by(layout, 1).peak_bytes == sum(1 for _ in layout.slabs(0))


def config(**changes):
    return parse_config(config_with(plane__height=2048, plane__width=2048, **changes))


def given_(workers=4):
    return Assumptions(SPEC, COST, 3, MACHINE, None, workers)


def test_a_search_keeps_to_every_limit_and_finds_nothing_cheaper_beyond_it():
    free = search(config(), given_(), Limits())
    assert free == sorted(free, key=lambda plan: plan.network_hours + plan.other_hours)
    middle = free[len(free) // 2]
    limits = Limits(jobs=sum(middle.jobs.values()), memory_gib=middle.job_bytes / 2**30)
    kept = search(config(), given_(), limits)
    assert middle in kept
    assert kept == [plan for plan in free if not limits.broken(plan)]
    assert len(kept) < len(free)


def test_a_search_counts_the_work_once_for_all_windows_of_a_slab(monkeypatch):
    counted, plans = Counter(), config(plane__sections=12)

    def count(layout, phase, wanted):
        counted[layout.slab, layout.phases, phase] += 1
        return phase_work(layout, phase, wanted)

    monkeypatch.setattr("teramind.plan.estimate.phase_work", count)
    found = search(plans, given_(), Limits())
    assert set(counted.values()) == {1}
    assert {plan.stack for plan in found} == {1, 5, 6}
    assert found[0] == estimate(applied(plans, found[0]), given_())


def test_a_search_tries_phases_only_where_they_get_shorter():
    asked = config(generate__steps=15, generate__slab=512, generate__phases=6)
    found = search(asked, given_(), Limits())
    assert {plan.phases for plan in found} == {1, 2, 3, 4, 5, 6, 8, 15}


def test_where_no_plan_keeps_to_the_limits_the_one_that_breaks_them_least_is_named():
    fewest = min(sum(plan.jobs.values()) for plan in search(config(), given_(), Limits()))
    with pytest.raises(UserError, match=rf"no plan keeps .* nearest: jobs {fewest} > 3$"):
        search(config(), given_(), Limits(jobs=3))


@pytest.mark.parametrize("limit", [0, -1, math.nan])
def test_a_limit_is_above_nothing(limit):
    with pytest.raises(UserError, match="limit of job_hours"):
        Limits(job_hours=limit)


def test_frames_cost_work_and_phases_jobs():
    one, many = (
        estimate(config(generate__slab=256, generate__steps=8, generate__phases=n), given_())
        for n in (1, 8)
    )
    assert one.frame_overhead > 1.3 > many.frame_overhead == 1
    assert sum(one.jobs.values()) < sum(many.jobs.values())
    assert one.petaflop > many.petaflop


@pytest.mark.parametrize("workers", [1, 3, 50])
@pytest.mark.parametrize("windows", [1, 2, 6])
def test_no_worker_is_busy_for_longer_than_the_run(windows, workers):
    asked = config(plane__sections=12, generate__slab=1024, generate__windows=windows)
    plan = estimate(asked, given_(workers))
    share = (plan.network_hours + plan.other_hours) / workers
    assert plan.wall_hours > share or plan.wall_hours == pytest.approx(share)
    assert workers > 1 or plan.wall_hours == pytest.approx(share)


def test_every_known_machine_says_where_its_numbers_are_from():
    for name, machine in known_hardware().items():
        assert find_hardware(name) == machine
        assert machine.source.startswith("peaks: ")
        assert 0 < speed(machine, "bfloat16") < 1e9 * machine.matrix_peak_gflops
        assert 0 < speed(machine, "float32") <= 1e9 * machine.float32_peak_gflops
        assert speed(machine, "float32") < speed(machine, "bfloat16")


def test_half_precision_does_not_stand_in_for_float32():
    half = Hardware(device="a box", gflops={"bfloat16": 50.0}, matrix_peak_gflops=100)
    with pytest.raises(UserError, match=r"^hardware a box: tells nothing of float32"):
        speed(half, "float32")
    assert speed(half.model_copy(update={"float32_peak_gflops": 7.0}), "float32") == 7e9
    assert speed(Hardware(device="a box", gflops={"float32": 5.0}), "bfloat16") == 5e9


def test_an_h100_takes_for_a_brain_what_its_measured_rate_says():
    """429 patches and steps per second, as ARCHITECTURE has it, with the frames of phases."""
    asked = read_config(ROOT / "config/tera-mind-638850.yaml")
    asked["generate"] |= {"slab": 2048, "windows": 25, "precision": "bfloat16"}
    brain = parse_config(asked | {"region": "all"})
    plan = estimate(brain, assume(brain, hardware="h100", workers=1)[0])
    wanted = wanted_work(brain.layout(), None)
    hours = plan.network_hours * (1 - plan.startup_share)
    assert plan.frame_overhead * wanted / 429 / 3600 == pytest.approx(hours, rel=0.05)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "not a machine's numbers"),
        ('{"gflops": {"float32": 5}}', "not a machine's numbers: device: Field required"),
        ('{"device": "x", "gflop": {}}', "not a machine's numbers: gflop: Extra inputs are not"),
        ('{"device": "x"}', "must give gflops or matrix_peak_gflops"),
        ('{"device": "x", "gflops": {"float32": -1}}', "not a machine's numbers"),
    ],
)
def test_a_file_that_is_no_machine_is_one_line(tmp_path, capsys, content, message):
    machine, run = tmp_path / "machine.json", tmp_path / "config.yaml"
    machine.write_text(content)
    run.write_text(yaml.safe_dump(config_with()))
    assert main(["plan", "--configfile", str(run), "--hardware", str(machine)]) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_the_command_prints_the_plan_as_json_and_as_a_table(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, machine = tmp_path / "config.yaml", tmp_path / "machine.json"
    run.write_text(yaml.safe_dump(config_with(generate__slab=128)))
    machine.write_text(json.dumps({"device": "a box", "gflops": {"float32": 10}}))
    words = ["plan", "--configfile", str(run), "--hardware", str(machine)]
    assert main([*words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["slab"], shown["device"], shown["tissue_known"]) == (128, "a box", False)
    assert "the hours of these rules are not in it: bin_expression, report" in shown["notes"]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert f"{sum(shown['jobs'].values()):,}\n" in table
    assert "note: no expression raster yet" in table
    assert main([*words, "--search", "--json"]) == 0
    cheapest = json.loads(capsys.readouterr().out)["plans"][0]
    assert any(line.startswith("the hours of these rules") for line in cheapest["notes"])
    assert main([*words, "--search", "--jobs", "1"]) == 1
    assert capsys.readouterr().err.startswith("error: no plan keeps to the limits")


def test_a_plan_with_another_network_than_the_checkpoint_is_refused(tmp_path, capsys):
    write_network(network := tmp_path / "network.safetensors")
    run = tmp_path / "config.yaml"
    changes = {"network__checkpoint": str(network), "network__stains": ["DAPI"]}
    run.write_text(yaml.safe_dump(config_with(**changes)))
    assert main(["plan", "--configfile", str(run), "--hardware", "a100"]) == 1
    assert capsys.readouterr().err.startswith("error: network.stains: ['DAPI'], but the checkpoint")


def test_a_search_warns_of_its_plan_and_not_of_the_configuration():
    asked = config(generate__slab=64, generate__memory_mb=1)
    (best, *_) = search(asked, given_(), Limits())
    assert best.slab > 64
    (line,) = (line for line in lacks(applied(asked, best), MACHINE, best) if "asks for" in line)
    applied_most = max(slab_job_megabytes(applied(asked, best), n) for n in range(best.phases))
    assert f"asks for {applied_most:,}:" in line


def test_what_the_numbers_leave_out_is_said():
    asked = config(reference__images="i", generate__noise="published", generate__slab=1024)
    said = "\n".join(lacks(asked, MACHINE, estimate(asked, given_())))
    assert "reference images (16 MiB before compression)" in said  # 2 stains, 2 x 2048 x 2048
    assert "drawing published noise takes " in said
    said = "\n".join(lacks(config(), MACHINE, estimate(config(), given_())))
    assert "images" not in said and "noise" not in said


def test_every_rule_is_timed_or_trivial_or_named():
    everything = {
        "phantom": {"height": 2048, "width": 2048},
        "reference__images": "out/phantom/images.ome.tif",
        "expression": {"kind": "molecules", "source": "out/phantom/molecules.parquet"},
        "expression__panel": "p.txt",
        "network__checkpoint": "train",
        "train": {"steps": 10, "minutes": 1, "rounds": 2},
        "attention__pathways": "p.gmt",
        "plane__sections": 1,
    }
    plan = estimate(config(**everything), given_())
    (line,) = (n for n in lacks(config(**everything), MACHINE, plan) if "hours of these" in n)
    named = set(line.partition(": ")[2].split(", "))
    timed = {rule for rule in plan.jobs if rule.startswith("generate_p")}
    timed |= {"stitch", "pyramid", "export_wsi"}
    trivial = {"all", "provenance", "create_volume", "create_attention"}
    assert named == plan.jobs.keys() - timed - trivial - {"train_r000"}
    assert {"train", "evaluate", "report", "split", "attention_joint"} <= named


def test_what_is_downloaded_is_named():
    asked = parse_config(read_config(ROOT / "config/tera-mind-638850.yaml"))
    given, _ = assume(asked, hardware="a100", workers=1)
    hours, disk, *_ = lacks(asked, given.hardware, estimate(asked, given))
    assert {"download", "convert_checkpoint"} <= set(hours.partition(": ")[2].split(", "))
    assert "downloaded archives (gene_638850.zip, main.zip)" in disk
    assert "converted checkpoint" in disk


def test_tiles_of_noise_count_once_per_window_and_slab():
    def seconds(**changes):
        one = {"generate__steps": 1, "generate__phases": 1}
        return _noise_seconds(config(generate__noise="published", **one, **changes))

    whole = seconds(generate__slab=2048)
    assert seconds(generate__slab=2048, plane__sections=4) == 4 * whole  # 2 windows, 4 sections
    # Half a patch around each of 2 x 2 slabs is in one more row and column of 4 x 4 tiles.
    assert seconds(generate__slab=1024) == pytest.approx(whole * 4 * 5**2 / 8**2)


@pytest.mark.parametrize(("gpus", "noted"), [(0, False), (1, True)])
def test_a_machine_without_the_gpu_asked_for_is_said(monkeypatch, gpus, noted):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("teramind.plan.assume.measure_here", lambda *_, **__: MACHINE)
    _, notes = assume(config(generate__gpus=gpus), hardware=None, workers=1)
    assert any(line.startswith("no GPU here") for line in notes) == noted


def test_what_a_job_here_would_refuse_is_not_measured(monkeypatch):
    monkeypatch.setattr("teramind.network.device.has_bfloat16", lambda: False)
    asked = config(generate__precision="bfloat16")
    with pytest.raises(UserError, match=r"^generate\.precision: bfloat16, .* by --hardware$"):
        assume(asked, hardware=None, workers=1)
    assume(asked, hardware="a100", workers=1)


def test_a_dry_run_takes_what_snakemake_takes_by_itself_and_more_with_every_job():
    few, many = (estimate(config(generate__slab=slab), given_()) for slab in (2048, 128))
    measured = (261, 1977), (478, 11805), (659, 19600)  # MiB and jobs, see ARCHITECTURE
    for mebi, jobs in measured:
        assert _dry_run_bytes(jobs) / 2**20 == pytest.approx(mebi, rel=0.03)
    assert _dry_run_bytes(0) < few.dry_run_bytes < many.dry_run_bytes


def test_the_full_size_network_costs_what_the_published_one_does():
    cost = patch_cost(NetworkSpec(64, 4, ("DAPI", "PolyT"), 229, 64, 512))
    published = (47.9e9, 127.3e9, 0.33e9, 213.8e6)
    found = (cost.encode, cost.decode, cost.genes, cost.weights)
    assert found == pytest.approx(published, rel=0.05)
    assert found[:2] == pytest.approx(published[:2], rel=0.005)


@pytest.mark.parametrize(
    ("checkpoint", "genes"),
    [
        ("published:main", 229),
        ("published:supp_m", 500),
        ("published:supp_f", 500),
        ("published/638850_64_81_all_1_ours", 81),
        ("published/638850_64_81_all_1_ours/last.ckpt", 81),
    ],
)
def test_a_published_network_is_known_to_read_so_many_genes_before_it_is_here(checkpoint, genes):
    asked = config(network__checkpoint=checkpoint, expression__panel="p.txt")
    assert assume(asked, hardware="a100", workers=1)[0].spec.genes == genes


@pytest.mark.parametrize("slab", [2048, 4096, 8192])
@pytest.mark.parametrize("solver", ["published", "dpm-solver++"])
def test_a_published_job_asks_for_what_the_plan_says_it_takes(slab, solver):
    values = read_config(ROOT / "config/tera-mind-638850.yaml")
    values["generate"] |= {"slab": slab, "solver": solver, "noise": "philox"}
    asked = parse_config(values | {"region": "all"})
    given, _ = assume(asked, hardware="a100", workers=1)
    need = estimate(asked, given).job_bytes / 1e6
    assert need <= max(slab_job_megabytes(asked, phase) for phase in range(3)) <= 2 * need


def test_a_slab_larger_than_the_plane_asks_for_no_more_than_the_plane():
    whole, larger = config(generate__slab=2048), config(generate__slab=16384)
    assert stitch_megabytes(whole) == stitch_megabytes(larger)
    for phase in range(3):
        assert slab_job_megabytes(whole, phase) == slab_job_megabytes(larger, phase)


def test_a_part_in_one_slab_asks_for_no_less_than_its_job_takes():
    values = read_config(ROOT / "config/tera-mind-638850.yaml")
    values["generate"] |= {"slab": 16384, "noise": "philox", "memory_mb": 8000}
    for bounds in ("volume", "region"):
        asked = parse_config(values | {"region": {"tiles": [38400, 38400, 8, 8]}, "bounds": bounds})
        given, _ = assume(asked, hardware="a100", workers=1)
        need = estimate(asked, given).job_bytes / 1e6
        assert need <= max(slab_job_megabytes(asked, phase) for phase in range(3)) <= 2 * need


@pytest.mark.parametrize(("memory_mb", "gpus", "warned"), [(8000, 0, 1), (40000, 0, 0), (9, 1, 1)])
def test_the_plan_warns_of_jobs_that_ask_for_too_little(memory_mb, gpus, warned):
    values = read_config(ROOT / "config/tera-mind-638850.yaml")
    values["generate"] |= {"slab": 8192, "memory_mb": memory_mb, "gpus": gpus}
    values["network"] |= {"sections": 16}
    asked = parse_config(values | {"region": "all"})
    given, _ = assume(asked, hardware="v100", workers=1)
    plan = estimate(asked, given)
    found = [line for line in lacks(asked, given.hardware, plan) if "a slab job takes" in line]
    assert len(found) == warned
    if found and not gpus:
        enough = int(found[0].split("generate.memory_mb to ")[1].split(",")[0])
        values["generate"]["memory_mb"] = enough
        enlarged = parse_config(values | {"region": "all"})
        most = max(slab_job_megabytes(enlarged, phase) for phase in range(3))
        assert plan.job_bytes <= 1e6 * most


def test_the_plan_warns_of_jobs_that_a_cluster_would_end_too_early():
    def warnings(**changes):
        asked = config(generate__slab=2048, generate__steps=8, **changes)
        slow = replace(given_(), hardware=MACHINE.model_copy(update={"gflops": {"float32": 1.0}}))
        plan = estimate(asked, slow)
        return plan, [line for line in lacks(asked, MACHINE, plan) if "minutes" in line]

    plan, (line,) = warnings(generate__minutes=1)
    enough = int(line.rpartition(" ")[2])
    assert 0 <= 60 * enough - plan.job_seconds <= 3600
    assert warnings(generate__minutes=enough)[1] == []


def test_the_memory_of_a_machine_ends_at_the_limit_of_its_container(monkeypatch, tmp_path):
    monkeypatch.setattr(job_memory, "LIMIT", tmp_path / "memory.max")
    whole = job_memory.megabytes_here()
    for limit, expected in (("2000000\n", 2), ("max\n", whole), (f"{10**18}\n", whole)):
        (tmp_path / "memory.max").write_text(limit)
        assert job_memory.megabytes_here() == expected
