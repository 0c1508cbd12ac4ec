"""Windows per second and peak memory of reading training windows from a made-up plane.

python benchmarks/training_stream.py             # 20,000 x 20,000 pixels, 4 sections, 2 stains
python benchmarks/training_stream.py --edge 4096 # a quick look

Images are decoded for real: one shard of texture is written and linked to every shard's place, so
the disk holds it once (and the page cache too: cold disks are slower). Molecules lie as densely as
in a whole mouse brain. Rates are per second of CPU time of this process, so that a busy machine
does not change them; memory is the process's peak, and what it was before the first window.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr

from teramind.expression.raster import Raster
from teramind.expression.raster_writer import RasterWriter
from teramind.geometry import Rect
from teramind.images.resample import open_images, resample_images
from teramind.network import NetworkSpec
from teramind.plan.measure import process_memory
from teramind.training.dataset import PairedImages, TrainingWindows
from teramind.units import MEBI

GENES, SECTIONS, DENSITY = 229, 4, 5e9 / (50 * 100_000 * 70_000)
SHAPES = {"published: 2 x 2 patches of 64": (64, 2), "3 x 3 patches of 32": (32, 3)}


def write_images(folder: Path, edge: int) -> Path:
    """An array as `resample_images` writes it, all shards linked to one of texture."""
    rng = np.random.default_rng(0)
    small, target = folder / "source.zarr", folder / "images.zarr"
    texture = rng.gamma(2, 12, (1, 1, 4096, 4096)).clip(0, 255).astype(np.uint8)
    group = zarr.create_group(small)
    group.create_array("0", data=texture, chunks=(1, 1, 1024, 1024))
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0, 1.0]}]
    axes = [{"name": name, "unit": "micrometer"} for name in "czyx"]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    resample_images(small, target, stains=["DAPI"], pixel_size_um=1.0)
    meta = json.loads((target / "zarr.json").read_text())
    meta["shape"] = [2, SECTIONS, edge, edge]
    (target / "zarr.json").write_text(json.dumps(meta))
    first = target / "c" / "0" / "0" / "0" / "0"
    tiles = -(-edge // 4096)
    for place in np.ndindex(2, SECTIONS, tiles, tiles):
        path = target.joinpath("c", *map(str, place))
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.link(first, path)
    return target


def write_molecules(folder: Path, edge: int) -> Path:
    """A raster with as many molecules per pixel as a whole brain's."""
    rng, path, part = np.random.default_rng(1), folder / "raster", 1 << 20
    panel = [f"gene{i}" for i in range(GENES)]
    extent = Rect(0, 0, edge, edge)
    with RasterWriter(path, panel=panel, sections=SECTIONS, extent=extent) as writer:
        for start in range(0, total := int(DENSITY * edge * edge * SECTIONS), part):
            n = min(part, total - start)
            y, x = rng.integers(0, edge, (2, n))
            gene, section = rng.integers(0, GENES, n), rng.integers(0, SECTIONS, n)
            writer.add(section=section, y=y, x=x, gene=gene, count=np.ones(n, int))
    return path


def measure(folder: Path, patch: int, edge: int) -> dict[str, float]:
    """Read windows for some seconds of CPU time."""
    spec = NetworkSpec(patch, 4, ("DAPI", "PolyT"), GENES, base=2, embed=8)
    pairs = PairedImages(
        open_images(folder / "images.zarr", spec.stains), Raster.open(folder / "raster")
    )
    before = process_memory("VmHWM") / MEBI
    windows = TrainingWindows(pairs, spec, edge=edge, batch=4, seed=0)
    windows(0)
    started, cpu, steps = time.monotonic(), time.process_time(), 0
    while time.process_time() - cpu < 8:
        steps += 1
        windows(steps)
    used = time.process_time() - cpu
    return {
        "windows per CPU second": 4 * steps / used,
        "windows per second now": 4 * steps / (time.monotonic() - started),
        "MiB before": before,
        "MiB at the peak": process_memory("VmHWM") / MEBI,
    }


def main() -> None:
    """Make the plane, then read it in fresh processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", type=int, default=20_000, help="pixels")
    parser.add_argument("--measure", nargs=3, metavar=("FOLDER", "PATCH", "EDGE"))
    asked = parser.parse_args()
    if asked.measure:
        folder, patch, edge = asked.measure
        print(json.dumps(measure(Path(folder), int(patch), int(edge))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, asked.edge)
        write_molecules(folder, asked.edge)
        for title, (patch, edge) in SHAPES.items():
            command = [sys.executable, __file__, "--measure", name, str(patch), str(edge)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            numbers = ", ".join(f"{k} {v:.1f}" for k, v in json.loads(printed).items())
            print(f"{asked.edge} x {asked.edge}, {title}: {numbers}", flush=True)


if __name__ == "__main__":
    main()
