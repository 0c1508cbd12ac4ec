"""The engine on a GPU: real phases of real slabs of the full-size network, random weights.

The baseline is the published scheme (`baseline.py`) on the same GPU, with its passes counted per
tile. Ends with one line of JSON: patches and steps per second, their part of the measured peak of
bfloat16 matrix products, the ratio to the baseline, GPU-hours for the whole brain, and how far
bfloat16 moves the bundled network's image, in grey levels.

    python benchmarks/gpu.py [--base 64] [--slab 2048] [--windows 5]
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from baseline import PlainNetwork, patches_of_tile
from engine import FULL, ROOT, make_network
from numpy.typing import NDArray

from teramind.engine.generate import Generator
from teramind.engine.noise import PhiloxNoise
from teramind.engine.solver import sampling_steps
from teramind.geometry import BIN, Layout, Rect, Slab, Windows
from teramind.network import Network, load_network
from teramind.network.fast import for_inference
from teramind.network.precision import set_precision

STEPS, PHASES = 15, 3
BRAIN = Rect(256, 256, 286 * 256, 414 * 256)
SECTIONS = 50


class RandomCounts:
    """Expression of a few molecules in every bin."""

    def __init__(self, genes: int) -> None:
        self.genes, self.made = genes, np.zeros(0, np.uint8)

    def counts(self, *, sections: range, rect: Rect) -> NDArray[np.uint8]:
        """Counts (bin y, bin x, section, gene)."""
        shape = (rect.height // BIN, rect.width // BIN, len(sections), self.genes)
        if self.made.shape != shape:  # made once, so that it is not timed
            self.made = np.random.default_rng(0).integers(0, 3, shape, np.uint8)
        return self.made

    def totals(self, *, section: int, rect: Rect) -> NDArray[np.int64]:
        """One molecule in every bin."""
        return np.ones((rect.height // BIN, rect.width // BIN), np.int64)


def generator(network: Network, precision: str, slab: int, sections: int) -> Generator:
    """The engine as a job makes it."""
    spec, whole = network.spec, Rect(0, 0, 3 * slab, 3 * slab)
    windows = Windows(sections=spec.sections, planes=sections)
    set_precision(network, getattr(torch, precision))
    return Generator(
        for_inference(network.cuda()),
        RandomCounts(spec.genes),
        PhiloxNoise(seed=0, stains=len(spec.stains), patch=spec.patch),
        Layout(whole, whole, spec.patch, slab, windows, STEPS, PHASES),
        sampling_steps(STEPS),
    )


def timed(work: Callable[[], Any]) -> float:
    """Seconds of some work on the GPU."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def matrix_tflops(edge: int = 8192) -> float:
    """Best of six bfloat16 matrix products."""
    a, b = torch.randn(2, edge, edge, device="cuda", dtype=torch.bfloat16)
    return 2 * edge**3 / min(timed(lambda: a @ b) for _ in range(6)) / 1e12


def noise(engine: Generator, rect: Rect) -> NDArray[np.float32]:
    """A state to start from, made faster than the reproducible one."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((engine.network.spec.channels, *rect[2:]), np.float32)


def run_slab(engine: Generator, windows: int, phase: int = 1) -> tuple[int, float]:
    """Patches stepped and seconds of one phase of the middle slab, window by window."""
    slabs = [Slab(window, 1, 1) for window in range(windows)]
    work = sum(engine.work(slab, phase) for slab in slabs)
    state = noise(engine, engine.layout.computed(slabs[0], phase).grown(engine.network.spec.half))
    return work, timed(lambda: [engine.run_phase(slab, phase, lambda _: state) for slab in slabs])


def baseline_seconds(network: Network, *, half: bool) -> float:
    """Seconds per patch and step of the published scheme."""
    spec, plain = network.spec, PlainNetwork(network)
    aligned, shifted = patches_of_tile(spec.patch)
    state = torch.randn(aligned, spec.channels, spec.patch, spec.patch, device="cuda")
    counts = (aligned, spec.bins, spec.bins, spec.sections, spec.genes)
    read = torch.randint(0, 3, counts, device="cuda").float()
    moment = network.embed_time(torch.tensor([500], device="cuda"))

    def tile() -> None:
        encoded = plain.encode(state, plain.genes(read), moment)
        plain.decode(encoded, moment)
        few = encoded._replace(
            middle=encoded.middle[:shifted],
            skips=[[skip[:shifted] for skip in level] for level in encoded.skips],
            genes=[level[:shifted] for level in encoded.genes],
        )
        plain.decode(few, moment)

    with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=half):
        tile()
        return min(timed(tile) for _ in range(5)) / shifted


def grey_levels() -> dict[str, float]:
    """How far bfloat16 moves an image of the bundled network, 15 steps."""
    found = []
    for precision in ("float32", "bfloat16"):
        network = load_network(ROOT / "resources" / "phantom.safetensors").requires_grad_(False)
        engine = generator(network, precision, 512, 4)
        state = engine.initial(1)(Rect(512, 512, 512, 512))
        layout = replace(engine.layout, bounds=Rect(0, 0, 512, 512), region=Rect(0, 0, 512, 512))
        engine = replace(engine, layout=replace(layout, phases=1))
        found.append(engine.run_phase(Slab(1, 0, 0), 0, lambda rect, s=state: s))
    exact, rounded = ((np.clip(state, -1, 1) + 1) * 127.5 for state in found)
    difference = np.abs(exact.round() - rounded.round())
    return {"mean": float(difference.mean()), "p99": float(np.quantile(difference, 0.99))}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="the engine on a GPU")
    parser.add_argument("--base", type=int, default=64)
    parser.add_argument("--slab", type=int, default=2048)
    parser.add_argument("--windows", type=int, default=5)
    given = parser.parse_args()
    spec = replace(FULL, base=given.base)
    peak = matrix_tflops()
    print(f"{torch.cuda.get_device_name()}: {peak:.0f} TFLOP/s in bfloat16", flush=True)
    line: dict[str, Any] = {"device": torch.cuda.get_device_name(), "matrix_tflops": peak}
    network = make_network(spec).cuda()
    slow = {
        name: baseline_seconds(network, half=half)
        for name, half in (("float32", False), ("float16", True))
    }
    network.cpu()  # so that the memory below is that of a job
    print(
        "baseline, patches and steps per second:", {k: 1 / v for k, v in slow.items()}, flush=True
    )
    for precision in ("bfloat16", "float32"):
        engine = generator(copy.deepcopy(network), precision, given.slab, 2 * given.windows)
        start_up = timed(lambda e=engine: run_slab(replace(e, layout=small(e.layout)), 1))
        windows = given.windows if precision == "bfloat16" else 1
        torch.cuda.reset_peak_memory_stats()
        work, seconds = run_slab(engine, windows)
        rate = work / seconds
        line[precision] = {
            "patches_per_second": rate,
            "speedup": rate * slow["float32"],
            "speedup_over_float16": rate * slow["float16"],
            "start_up_seconds": start_up,
            "gib": torch.cuda.max_memory_allocated() / 2**30,
            "brain_hours": brain_work(engine) / rate / 3600,
        }
        print(precision, line[precision], flush=True)
    line["grey_levels"] = grey_levels()
    print(json.dumps(line))


def small(layout: Layout) -> Layout:
    """The same with slabs of 512 pixels, for the start."""
    return replace(layout, slab=512)


def brain_work(engine: Generator) -> float:
    """Patches and steps of the whole published brain, all of it tissue, in slabs of this size."""
    layout, spec = engine.layout, engine.network.spec
    windows = Windows(sections=spec.sections, planes=SECTIONS)
    inner = sum(engine.work(Slab(0, 1, 1), phase) for phase in range(PHASES))
    return inner * (BRAIN.area / layout.slab**2) * len(windows)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
