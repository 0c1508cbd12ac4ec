"""Measure a network on this machine: a few patches, in a process of its own as a job has it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teramind.errors import UserError
from teramind.geometry import BIN, Layout, Rect, Windows
from teramind.network import NetworkSpec
from teramind.plan.flops import PatchCost
from teramind.plan.hardware import Hardware
from teramind.units import MEBI

SECONDS = 3.0
"""How long the measured run should take."""


def measure_here(
    spec: NetworkSpec,
    cost: PatchCost,
    *,
    threads: int,
    gpus: int,
    precision: str,
    width: int,
    seconds: float = SECONDS,
) -> Hardware:
    """Time a few patches of a network with random weights as a slab's job would run them.

    Args:
        spec: sizes of the network.
        cost: of its patches.
        threads: CPU threads of a job.
        gpus: GPUs of a job.
        precision: float32 or bfloat16.
        width: patches side by side in a slab's frame.
        seconds: about how long to measure.

    Returns:
        Speed, start-up time and memory of a process. Of one CPU thread CPU seconds are taken,
        which other work on the machine hardly moves; of several, and of a GPU, those of the clock.
    """
    asked = {
        "spec": spec.to_dict() | {"training": {}},
        "threads": threads,
        "gpus": gpus,
        "precision": precision,
        "width": width,
        "seconds": seconds,
        "cost": asdict(cost),
    }
    command = [sys.executable, "-m", __name__, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"measuring the network failed: {line}")
    return Hardware.model_validate_json(done.stdout.splitlines()[-1])


class EvenExpression:
    """One molecule of every gene in every bin: what the network sees does not change its speed."""

    def __init__(self, genes: int) -> None:
        self.genes = genes

    def counts(self, *, sections: Sequence[int], rect: Rect) -> NDArray[np.unsignedinteger]:
        """See `Expression`."""
        bins = (rect.height // BIN, rect.width // BIN)
        return np.ones((*bins, len(sections), self.genes), np.uint8)

    def totals(self, *, section: int, rect: Rect) -> NDArray[np.int64]:
        """See `Expression`."""
        return np.full((rect.height // BIN, rect.width // BIN), self.genes, np.int64)


def one_phase(spec: NetworkSpec, *, rows: int, cols: int) -> Layout:
    """One window of so many patches and a single step."""
    windows = Windows(sections=spec.sections, planes=1)
    windows = Windows(sections=spec.sections, planes=windows.depth + 2 * windows.first)
    region = Rect(0, 0, rows * spec.patch, cols * spec.patch)
    return Layout.whole(region, patch=spec.patch, windows=windows, steps=1)


def _measure(asked: dict[str, Any]) -> Hardware:
    """What the process of its own does."""
    import torch

    from teramind.engine import slab as _  # noqa: F401 - a job's imports
    from teramind.engine.phase_plane import band_height
    from teramind.network import Network
    from teramind.network.fast import for_inference
    from teramind.network.precision import set_precision
    from teramind.plan.memory import work_bytes

    torch.set_num_threads(asked["threads"])
    spec = NetworkSpec.from_dict(asked["spec"])
    device = "cuda" if asked["gpus"] and torch.cuda.is_available() else "cpu"
    loaded = Network(spec).requires_grad_(False).eval()
    set_precision(loaded, getattr(torch, asked["precision"]))
    network = for_inference(loaded.to(device))
    startup, process = time.process_time(), process_memory("VmRSS")
    clock = _clock(device, asked["threads"])
    _run(network, clock, rows=1, cols=2)  # kernels are chosen and compiled at their first call
    cols = asked["width"]
    rows = band_height(cols + 1)
    taken = _run(network, clock, rows=rows, cols=cols)
    if taken < asked["seconds"] / 2:
        rows = min(max(round(rows * asked["seconds"] / taken), 2), 64)
        taken = _run(network, clock, rows=rows, cols=cols)
    peak = process_memory("VmHWM")  # not ru_maxrss, which a process takes over from its parent
    cost = PatchCost(**asked["cost"])
    frame = one_phase(spec, rows=rows, cols=cols).region.grown(spec.half)
    held = work_bytes(frame, spec, cost, planes=1, genes=spec.genes, workspace=0)
    flops = cost.flops(encoded=(rows + 1) * (cols + 1), decoded=rows * cols)
    name = torch.cuda.get_device_name() if device == "cuda" else "this CPU"
    return Hardware(
        device=f"{name}, {asked['threads']} threads",
        gflops={asked["precision"]: flops / taken / 1e9},
        source=f"{rows} x {cols} patches timed here",
        startup_seconds=startup,
        process_mib=process / MEBI,
        workspace_mib=max(peak - process - held, 0) / MEBI,
    )


def _clock(device: str, threads: int) -> Callable[[], float]:
    """Seconds that one CPU thread worked, or of the clock: several threads wait for each other."""
    return time.process_time if device == "cpu" and threads == 1 else time.perf_counter


def _run(network: Any, clock: Callable[[], float], *, rows: int, cols: int) -> float:
    """Seconds of one step of `rows` x `cols` patches."""
    from teramind.engine.generate import Generator
    from teramind.engine.noise import PhiloxNoise
    from teramind.engine.solver import sampling_steps

    spec, layout = network.spec, one_phase(network.spec, rows=rows, cols=cols)
    generator = Generator(
        network=network,
        expression=EvenExpression(spec.genes),
        noise=PhiloxNoise(seed=0, stains=len(spec.stains), patch=spec.patch),
        layout=layout,
        schedule=sampling_steps(1),
    )
    start = clock()
    generator.run_phase(next(layout.slabs(0)), 0, generator.initial(0))
    return clock() - start


def process_memory(line: str) -> int:
    """Bytes in a line of the process's status: VmRSS is held now, VmHWM the most so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition(f"{line}:")[2].split()[0])


if __name__ == "__main__":
    print(_measure(json.loads(sys.argv[1])).model_dump_json())
