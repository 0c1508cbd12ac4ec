"""The engine against the published scheme, in pairs in one process.

Both have the same weights and run pass by pass and by turns, so that whatever else the machine
does falls on both. With several threads torch shares out the published scheme's operations among
them, the engine its patches. The published scheme, which is so much slower, takes a quarter of the
patches: with two it took 1.5 % longer a patch than with eight. A scheme's time per patch and step
is the time of its passes times the number of them that it makes per patch; the numbers are counted
on its own geometry. Both must give the same noise, or the benchmark fails. On a CPU with
instructions for bfloat16 the engine runs a third time with them, against the same float32 baseline,
and what that moves the noise is measured. Ends with one line of JSON for the full-size network and
appends it to a history.

    python benchmarks/engine.py [--rounds 3] [--batch 8] [--threads 1] [--hardware speed.json]

`--hardware` also writes the machine's speed, which `teramind plan --hardware` reads: {"device",
"gflops": {"float32", "bfloat16"}, "source"}, GFLOP as counted for direct convolutions.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from baseline import PlainNetwork, patches_of_tile
from passes import count
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from teramind.engine.workers import side_by_side
from teramind.network import Network, NetworkSpec, load_network
from teramind.network.device import has_bfloat16
from teramind.network.fast import for_inference
from teramind.network.precision import set_precision
from teramind.run.provenance import git_revision

ROOT = Path(__file__).parents[1]
FULL = NetworkSpec(64, 4, ("DAPI", "PolyT"), 229, 64, 512)
PASSES = ("genes", "encode", "decode")
TOLERANCE = 1e-4
"""Largest difference of the two schemes' noise in float32, both as root mean squares."""
Clock = Callable[[], float]
"""Seconds since some moment."""
PRECISIONS = ["float32"] + ["bfloat16"] * has_bfloat16()
"""In which the engine is timed."""


@dataclass
class Timing:
    """Seconds per patch of each pass, one per round, and GFLOP per patch."""

    seconds: dict[str, list[float]]
    gflop: dict[str, float]

    def per_patch(self, passes: dict[str, float]) -> np.ndarray:
        """Seconds per patch and step in each round, when so many passes are made per patch."""
        return sum(n * np.array(self.seconds[name]) for name, n in passes.items())


class Chain:
    """One form of the network, run pass by pass on the same patches.

    Args:
        network: the form.
        state: of the patches.
        counts: of the patches.
        now: the clock.
        threads: into as many batches the patches are split, which are computed side by side.
    """

    def __init__(
        self, network: Any, state: Tensor, counts: Tensor, now: Clock, *, threads: int = 1
    ) -> None:
        self.network, self.patches, self.now, self.threads = network, len(state), now, threads
        self.state, self.counts = state.tensor_split(threads), counts.tensor_split(threads)
        self.time = network.embed_time(torch.tensor([500]))
        self.timing = Timing({name: [] for name in PASSES}, {})
        self.results: dict[str, list[Any]] = {}

    def run(self, name: str) -> None:
        """Do one pass and time it; the first time, count its operations instead."""
        done = self.results
        work: dict[str, Callable[[int], Any]] = {
            "genes": lambda i: self.network.genes(self.counts[i]),
            "encode": lambda i: self.network.encode(self.state[i], done["genes"][i], self.time),
            "decode": lambda i: self.network.decode(done["encode"][i], self.time),
        }
        batches = range(len(self.state))
        if name not in self.timing.gflop:
            with FlopCounterMode(display=False) as counter:  # which sees this thread alone
                done[name] = list(map(work[name], batches))
            self.timing.gflop[name] = counter.get_total_flops() / self.patches / 1e9
            return
        with side_by_side(self.threads) as each:
            start = self.now()
            done[name] = list(each(work[name], batches))
            self.timing.seconds[name].append((self.now() - start) / self.patches)

    def noise(self) -> Tensor:
        """What the last pass gave."""
        return torch.cat(self.results["decode"])


def matrix_gflops(now: Clock, edge: int = 1024) -> float:
    """GFLOP per second of one product of two square float32 matrices."""
    a, b = torch.randn(2, edge, edge)
    start = now()
    a @ b
    return 2 * edge**3 / (now() - start) / 1e9


def make_network(spec: NetworkSpec) -> Network:
    """A network of random weights."""
    torch.manual_seed(0)
    return Network(spec).requires_grad_(False).eval()


class Comparison(NamedTuple):
    """Both schemes on the same patches.

    Attributes:
        published: timing of the published scheme.
        engine: the engine's, by precision.
        difference: root mean square between their noise, over that of the noise, by precision.
        peak: best rate of float32 matrix products between them.
    """

    published: Timing
    engine: dict[str, Timing]
    difference: dict[str, float]
    peak: float


def engine_in(network: Network, precision: str) -> Any:
    """The engine's form of a network, which keeps its weights."""
    rounded = copy.deepcopy(network)
    set_precision(rounded, getattr(torch, precision))
    return for_inference(rounded)


def compare(network: Network, batch: int, rounds: int) -> Comparison:
    """Time both schemes by turns."""
    spec = network.spec
    state = torch.randn(batch, spec.channels, spec.patch, spec.patch)
    counts = torch.randint(0, 4, (batch, spec.bins, spec.bins, spec.sections, spec.genes)).float()
    stride = 4  # of the patches that the published scheme takes: some of every thread's
    threads = torch.get_num_threads()
    # Of one thread the seconds that it works, on which a busy machine has little influence.
    now = time.process_time if threads == 1 else time.perf_counter
    published = Chain(PlainNetwork(network), state[::stride], counts[::stride], now)
    batches = min(threads, batch)
    engine = {
        precision: Chain(engine_in(network, precision), state, counts, now, threads=batches)
        for precision in PRECISIONS
    }
    chains = [published, *engine.values()]
    peak = 0.0
    for round_ in range(rounds + 1):
        for name in PASSES:
            for chain in chains if round_ % 2 else chains[::-1]:
                chain.run(name)
        peak = max(peak, *(matrix_gflops(now) for _ in range(3)))
    plain = published.noise()
    difference = {}
    for precision, chain in engine.items():
        error = chain.noise()[::stride] - plain
        difference[precision] = (error.square().mean() / plain.square().mean()).sqrt().item()
    if not difference["float32"] <= TOLERANCE:
        raise SystemExit(f"the schemes differ by {difference['float32']:.1e} of the noise")
    timings = {precision: chain.timing for precision, chain in engine.items()}
    return Comparison(published.timing, timings, difference, peak)


def report(name: str, network: Network, batch: int, rounds: int) -> dict[str, Any]:
    """Measure one network and print what was found."""
    aligned, shifted = patches_of_tile(network.spec.patch)
    extra, counted = aligned / shifted, count(network)
    published = {"genes": extra, "encode": extra, "decode": extra + 1}
    ours = {"genes": counted.genes, "encode": counted.encode, "decode": 1.0}
    measured = compare(network, batch, rounds)
    base, engine, peak = measured.published, measured.engine["float32"], measured.peak
    slow = base.per_patch(published)
    seconds = {p: timing.per_patch(ours) for p, timing in measured.engine.items()}
    fast = median(seconds["float32"])
    needed = base.gflop["encode"] + base.gflop["decode"]
    done = sum(n * engine.gflop[p] for p, n in ours.items())
    each = {p: median(np.divide(base.seconds[p], engine.seconds[p])) for p in PASSES}
    found = {
        "patches_per_second": {p: 1 / median(s) for p, s in seconds.items()},
        "speedup": {p: median(slow / s) for p, s in seconds.items()},
        "slowest_round": {p: float(min(slow / s)) for p, s in seconds.items()},
        "fastest_round": {p: float(max(slow / s)) for p, s in seconds.items()},
        "difference": measured.difference,
        "speedup_of_a_pass": each,
        "seconds_of_a_pass": {p: median(engine.seconds[p]) for p in PASSES},
        "gflop_published": sum(n * base.gflop[p] for p, n in published.items()),
        "gflop_needed": needed,
        "gflop_done": done,
        "matrix_peak_gflops": peak,
        "fraction_of_peak": done / fast / peak,
        "needed_over_peak": needed / fast / peak,
        "encoder_passes_per_patch": counted.encode,
        "frame": counted.frame,
        "bytes_read_per_voxel": counted.read,
        "bytes_written_per_voxel": counted.written,
    }
    print(f"{name} network, {batch} patches of {network.spec.patch} pixels, {rounds} rounds")
    for key, value in found.items():
        print(f"  {key:26} {shown(value)}", flush=True)
    return found


def shown(value: Any) -> str:
    """A number or numbers with four digits."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(v)}" for key, v in value.items())
    return f"{value:.4g}"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="the engine against the published scheme")
    parser.add_argument("--rounds", type=int, default=3, help="pairs that are timed")
    parser.add_argument("--batch", type=int, default=8, help="patches of the full-size network")
    parser.add_argument("--base", type=int, default=64, help="narrower than full size, for a try")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hardware", type=Path, help="file for the machine's speed")
    parser.add_argument("--history", type=Path, default=ROOT / "benchmarks" / "history.jsonl")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with torch.inference_mode():
        bundled = load_network(ROOT / "resources" / "phantom.safetensors")
        full = report(
            "full-size", make_network(replace(FULL, base=given.base)), given.batch, given.rounds
        )
        # Of all schemes; so far nothing else has run.
        full["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        small = report("bundled", bundled.requires_grad_(False), 16, given.rounds)
    print(f"full-size network, all schemes: peak memory {full['peak_memory_gib']:.2f} GiB")
    line = {
        "speedup_float32": round(full["speedup"]["float32"], 3),
        # Null on a CPU without instructions for it, where the workflow refuses it.
        "speedup_bfloat16": round(full["speedup"]["bfloat16"], 3) if has_bfloat16() else None,
        "encoder_passes_per_patch": round(full["encoder_passes_per_patch"], 4),
        "bytes_per_voxel": full["bytes_read_per_voxel"] + full["bytes_written_per_voxel"],
    }
    machine = {
        "device": device(),
        "threads": given.threads,
        "base": given.base,
        "revision": git_revision(ROOT),
    }
    record = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **machine, **line}
    record |= {"full": full, "bundled": small}
    with given.history.open("a") as history:
        history.write(json.dumps(record) + "\n")
    if given.hardware:
        rates = full["patches_per_second"]
        speed = {
            "device": f"{device()}, {given.threads} threads",
            "gflops": {p: rate * full["gflop_needed"] for p, rate in rates.items()},
            "source": f"benchmarks/engine.py, {machine['revision']}",
        }
        given.hardware.write_text(json.dumps(speed, indent=2) + "\n")
    print(json.dumps(line))


def device() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
