"""The whole brain rehearsed with everything but the network.

    python benchmarks/rehearsal.py graph          # Snakemake's graph of jobs at full lattice size
    python benchmarks/rehearsal.py path [EDGE]    # raster -> states -> volume -> pyramid -> slide

`graph` makes a dry run of the published lattice, 286 x 414 tiles of 256 pixels in 25 windows, with
the slabs given, and prints its time and memory. `path` takes a square plane of two sections through
the real jobs with a stand-in for the network that costs nothing, and prints for each kind of job
voxels per CPU second and bytes moved per voxel. CPU seconds are counted because they hardly move
when other work runs on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import teramind.engine.slab
import teramind.engine.stitch
from teramind.config import Config, parse_config
from teramind.engine.slab import generate_slab
from teramind.engine.stitch import stitch_slab
from teramind.expression.raster_writer import RasterWriter
from teramind.geometry import Slab
from teramind.network import Network, NetworkSpec
from teramind.network.unet import Encoded
from teramind.volume import VolumeLayout, build_pyramid, create_volume
from teramind.volume.wsi import export_section

ROOT = Path(__file__).parents[1]
TILE, ROWS, COLS = 256, 286, 414
WHOLE_BRAIN = ROWS * COLS * TILE**2 * 50 * 2
GENES = 229


def settings(folder: Path, *, height: int, width: int, sections: int, **generate: Any) -> Config:
    """A configuration with the published network's sizes."""
    return parse_config(
        {
            "results": str(folder),
            "expression": {"kind": "tiles", "source": str(folder / "tiles")},
            "plane": {
                "height": height,
                "width": width,
                "sections": sections,
                "pixel_size_um": 0.12,
                "section_spacing_um": 200,
            },
            "network": {
                "checkpoint": str(folder / "network.safetensors"),
                "patch": 64,
                "sections": 4,
            },
            "generate": generate,
        }
    )


def graph(slab: int, phases: int, windows: int) -> None:
    """Dry-run the whole brain with `windows` z-windows a job."""
    with tempfile.TemporaryDirectory() as name:
        size = {"height": ROWS * TILE, "width": COLS * TILE, "sections": 50}
        config = settings(Path(name), **size, slab=slab, phases=phases, windows=windows)
        file = Path(name, "config.yaml")
        file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
        command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "all"]
        command += ["--snakefile", str(ROOT / "Snakefile"), "--configfile", str(file)]
        start = time.perf_counter()
        process = subprocess.Popen([*command, "--directory", name], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        layout = config.layout()
        slabs = [sum(1 for _ in layout.slabs(phase)) for phase in range(phases)]
    jobs = sum(slabs) + slabs[-1] + 2 * 50 + 5
    cpu = used.ru_utime + used.ru_stime
    print(f"whole brain, slabs of {slab} pixels, {windows} windows a job, {phases} phases")
    print(f"{jobs:,} jobs, exit {status}")
    print(f"dry run: {cpu:.0f} s of CPU, {wall:.0f} s of wall, {used.ru_maxrss / 1024:.0f} MiB")
    print(f"per 1,000 jobs: {1000 * cpu / jobs:.2f} s, {used.ru_maxrss / 1.024 / jobs:.1f} MiB")


class FreeNetwork:
    """A stand-in whose noise estimate is zero and whose features are next to nothing."""

    axes = Network.axes

    def __init__(self) -> None:
        self.spec = NetworkSpec(64, 4, ("DAPI", "PolyT"), GENES, 64, 512)
        self.stem = torch.nn.Conv3d(1, 1, 1)
        self.calls = 0

    def to(self, *where: object) -> FreeNetwork:
        """Itself."""
        return self

    def embed_time(self, t: torch.Tensor) -> torch.Tensor:
        """Nothing."""
        return t

    def genes(self, counts: torch.Tensor) -> list[torch.Tensor]:
        """One number a patch: the engine asks how many patches' features it can keep."""
        return [counts.new_zeros(len(counts), 1)] * 4

    def encode(self, state: torch.Tensor, genes: list[torch.Tensor], time: torch.Tensor) -> Encoded:
        """No features at all."""
        empty = state.new_empty(len(state), 2, 0, 2, 2)
        return Encoded(empty, [[empty] * 3] * 4, [empty] * 4)

    def decode(self, encoded: Encoded, time: torch.Tensor) -> torch.Tensor:
        """Noise of zeros: (n, stain z, P, P)."""
        self.calls += len(encoded.middle)
        return torch.zeros(len(encoded.middle), self.spec.channels, 64, 64)


class Meter:
    """CPU seconds and bytes moved, by kind of job."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.moved: dict[str, int] = {}
        self.mapped = 0

    @contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Add what happens inside to `kind`."""
        start, moved = time.process_time(), self._moved()
        yield
        self.seconds[kind] = self.seconds.get(kind, 0) + time.process_time() - start
        self.moved[kind] = self.moved.get(kind, 0) + self._moved() - moved

    def counting(self, load: Callable[..., Any]) -> Callable[..., Any]:
        """A reader of states, whose bytes come through a memory map, past the system's count."""

        def counted(*args: Any, **named: Any) -> Any:
            found = load(*args, **named)
            parts = found if isinstance(found, list) else [found]
            self.mapped += sum(state.nbytes for _, state in parts)
            return found

        return counted

    def _moved(self) -> int:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
        counts = dict(line.split(": ") for line in lines)
        return int(counts["rchar"]) + int(counts["wchar"]) + self.mapped


def write_raster(path: Path, config: Config, molecules: int) -> None:
    """Molecules all over the plane, as dense as 5e9 in the whole brain."""
    random = np.random.default_rng(0)
    extent, sections = config.plane.rect, config.plane.sections
    panel = [f"gene_{gene}" for gene in range(GENES)]
    with RasterWriter(path, panel=panel, sections=sections, extent=extent) as raster:
        for start in range(0, molecules, 1_000_000):
            n = min(1_000_000, molecules - start)
            raster.add(
                section=random.integers(0, sections, n),
                y=random.integers(0, extent.height, n),
                x=random.integers(0, extent.width, n),
                gene=random.integers(0, GENES, n),
            )


def path(edge: int, slab: int, phases: int) -> None:
    """Run every job of a plane of two sections with the stand-in."""
    network, meter = FreeNetwork(), Meter()
    teramind.engine.slab.load_network = lambda path: network
    teramind.engine.slab.set_precision = lambda loaded, dtype: None
    teramind.engine.slab.for_inference = lambda loaded: loaded
    teramind.engine.slab.load_parts = meter.counting(teramind.engine.slab.load_parts)
    teramind.engine.stitch.load_parts = meter.counting(teramind.engine.stitch.load_parts)
    teramind.engine.stitch.load_state = meter.counting(teramind.engine.stitch.load_state)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = settings(folder, height=edge, width=edge, sections=2, slab=slab, phases=phases)
        (folder / "network.safetensors").write_bytes(b"stand-in")
        voxels = 2 * config.layout().voxels
        molecules = round(5e9 * voxels / WHOLE_BRAIN)
        with meter.measure("bin_expression"):
            write_raster(folder / "raster.zarr", config, molecules)
        peak = _run_slabs(config, folder, meter)
        with meter.measure("pyramid"):
            for z in range(2):
                build_pyramid(folder / "volume.zarr", z=z)
        with meter.measure("export_wsi"):
            for z in range(2):
                export_section(
                    volume=folder / "volume.zarr", z=z, path=folder / f"{z}.tif", name=""
                )
        stored = {
            "volume": sum(f.stat().st_size for f in (folder / "volume.zarr/0").rglob("*")),
            "pyramid": sum(f.stat().st_size for f in (folder / "volume.zarr").glob("[1-9]/**/*")),
            "wsi": sum(f.stat().st_size for f in folder.glob("*.tif")),
        }
    _report(meter, voxels, network.calls, peak, stored)


def _run_slabs(config: Config, folder: Path, meter: Meter) -> int:
    """Generate and stitch; return the most bytes of states on the disk at a time."""
    layout, peak = config.layout(), 0
    create_volume(
        folder / "volume.zarr",
        VolumeLayout(
            shape=(2, 2, layout.region.height, layout.region.width),
            slab=layout.slab,
            pixel_size_um=0.12,
            section_spacing_um=200,
            stains=config.network.stains,
            attributes={},
        ),
    )

    def state(slab: Slab, phase: int) -> Path:
        return folder / f"p{phase}" / f"{slab}.safetensors"

    for phase in range(layout.phases):
        for slab in layout.slabs(phase):
            sources = [state(s, phase - 1) for s in layout.sources(slab, phase)] if phase else []
            with meter.measure(f"generate_p{phase:03d}"):
                generate_slab(
                    config,
                    slab,
                    phase,
                    checkpoint=folder / "network.safetensors",
                    raster=folder / "raster.zarr",
                    sources=sources,
                    output=state(slab, phase),
                )
        peak = max(peak, sum(f.stat().st_size for f in folder.glob("p*/*")))
        for old in folder.glob(f"p{phase - 1}/*"):
            old.unlink()
    last = layout.phases - 1
    for slab in layout.slabs(last):
        right, below = slab._replace(col=slab.col + 1), slab._replace(row=slab.row + 1)
        with meter.measure("stitch"):
            stitch_slab(
                config,
                slab,
                checkpoint=folder / "network.safetensors",
                raster=folder / "raster.zarr",
                state=state(slab, last),
                right=state(right, last) if state(right, last).exists() else None,
                below=state(below, last) if state(below, last).exists() else None,
                volume=folder / "volume.zarr",
            )
    return peak


def _report(meter: Meter, voxels: int, calls: int, peak: int, stored: dict[str, int]) -> None:
    print(f"{voxels:.3g} voxels, {calls:,} patches decoded, states at most {peak / 2**20:.0f} MiB")
    print(f"{'job':<16} {'CPU s':>8} {'voxels/CPU s':>14} {'bytes/voxel':>12} {'brain CPU h':>12}")
    for kind, seconds in meter.seconds.items():
        rate, moved = voxels / max(seconds, 1e-9), meter.moved[kind] / voxels
        hours = WHOLE_BRAIN / rate / 3600
        print(f"{kind:<16} {seconds:8.1f} {rate:14.3g} {moved:12.1f} {hours:12.1f}")
    seconds, moved = sum(meter.seconds.values()), sum(meter.moved.values()) / voxels
    print(
        json.dumps(
            {
                "bytes_per_voxel": round(moved, 1),
                "voxels_per_cpu_second": round(voxels / seconds),
                "whole_brain_cpu_hours": round(WHOLE_BRAIN * seconds / voxels / 3600, 1),
                "whole_brain_terabytes_moved": round(WHOLE_BRAIN * moved / 1e12, 1),
                "stored_bytes_per_voxel": {k: round(v / voxels, 3) for k, v in stored.items()},
            }
        )
    )


def main() -> None:
    """Run one of the rehearsals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("graph", "path"))
    parser.add_argument("edge", nargs="?", type=int, default=8192, help="of the plane, pixels")
    parser.add_argument("--slab", type=int, help="by default 8192 for graph, 2048 for path")
    parser.add_argument("--phases", type=int, default=3)
    parser.add_argument("--windows", type=int, default=1, help="z-windows a job, of graph")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.what == "graph":
        graph(asked.slab or 8192, asked.phases, asked.windows)
    else:
        path(asked.edge, asked.slab or 2048, asked.phases)


if __name__ == "__main__":
    main()
