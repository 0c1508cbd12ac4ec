"""How good the images of each solver are, against the number of steps.

    python benchmarks/solvers.py [FOLDER, default benchmarks] [--edge 512] [--threads 2]

The bundled network draws the first window of a phantom that training never saw, from the same
noise with every solver and number of steps, and the evaluation's measures compare DAPI with the
phantom's own images. Writes solvers.csv and solvers.png, and prints every row once it is there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from teramind.engine.region import generate_region
from teramind.evaluate.headline import headline
from teramind.evaluate.measure import NUCLEAR_STAIN, Lattice, Scene
from teramind.evaluate.nuclei import find_nuclei
from teramind.expression.bin_expression import bin_expression
from teramind.expression.molecules import MoleculeColumns, MoleculeSettings
from teramind.geometry import Rect
from teramind.network import Network, load_network
from teramind.phantom import make_phantom, write_phantom
from teramind.schedule import SolverName

ROOT = Path(__file__).parents[1]
RUNS: dict[SolverName, tuple[int, ...]] = {
    "published": (10, 15, 20, 50),
    "ddim": (5, 7, 10, 15, 20, 50),
    "dpm-solver++": (5, 7, 10, 15, 20, 50),
}
PHANTOM_SEED = 22
"""That of config/bundled.yaml."""

WANTED = {
    "nuclei_f1": "F1 of nuclei",
    "count_ratio": "nuclei, generated over real",
    "correlation_5um": "correlation at 5 um",
    "correlation_2um": "correlation at 2 um",
    "patch_border_ratio": "patch border ratio",
    "fine_power": "log10 power ratio, 2 to 4 um",
}
"""What is plotted, with its axis label."""


def make_data(folder: Path, network: Network, edge: int) -> tuple[Path, NDArray[np.uint8]]:
    """A phantom of one window: its expression raster and its images (c, z, y, x)."""
    spec = network.spec
    phantom = make_phantom(
        height=edge,
        width=edge,
        sections=spec.images,
        pixel_size_um=spec.pixel_size_um,
        section_spacing_um=spec.section_spacing_um,
        seed=PHANTOM_SEED,
    )
    write_phantom(folder, phantom)
    raster = folder / "raster.zarr"
    bin_expression(
        source=folder / "molecules.parquet",
        raster_path=raster,
        panel=list(spec.panel),
        sections=spec.images,
        extent=Rect(0, 0, edge, edge),
        panel_table_path=folder / "panel.tsv",
        pixel_size_um=spec.pixel_size_um,
        settings=MoleculeSettings(columns=MoleculeColumns(x="x_um", y="y_um", section="section")),
    )
    return raster, phantom.images


def judge(
    generated: NDArray[np.uint8], real: NDArray[np.uint8], network: Network
) -> dict[str, float]:
    """The headline of DAPI and its finest structure; images (c, z, y, x)."""
    spec, stain = network.spec, network.spec.stains.index(NUCLEAR_STAIN)
    whole = Rect(0, 0, *real.shape[2:])
    rows: list[dict[str, Any]] = []
    for made, true in zip(generated[stain], real[stain], strict=True):
        scene = Scene(
            real=partial(cut, true),
            subjects={"generated": partial(cut, made)},
            stain=NUCLEAR_STAIN,
            pixel_size_um=spec.pixel_size_um,
            whole=whole,
            finder=partial(find_nuclei, pixel_size_um=spec.pixel_size_um),
            lattice=Lattice(spec.patch, whole.height, (0, 0)),
        )
        where = {"area": "whole", "stain": NUCLEAR_STAIN}
        rows += [where | measure._asdict() for measure in scene.measures(whole)]
    table = pd.DataFrame(rows)
    mean = table[table.subject == "generated"].groupby(["measure", "scale_um"]).value.mean()
    more = {
        "correlation_2um": mean["correlation", 2.0],
        "fine_power": mean["log10_power_ratio", 2.0],
    }
    return headline(table) | more


def cut(image: NDArray[np.uint8], rect: Rect) -> NDArray[np.uint8]:
    """Pixels of a rectangle."""
    return image[rect.slices]


def curves(
    network: Network, raster: Path, real: NDArray[np.uint8]
) -> Iterator[dict[str, str | int | float]]:
    """One row for each run: solver, steps, seconds and the measures."""
    for solver, counts in RUNS.items():
        for steps in counts:
            started = time.perf_counter()
            generated = generate_region(network, raster, steps=steps, solver=solver)
            seconds = time.perf_counter() - started
            row = {"solver": solver, "steps": steps, "seconds": seconds}
            yield row | judge(generated, real, network)


def draw_curves(table: pd.DataFrame, path: Path) -> None:
    """A panel for each measure, in it a line for each solver."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    for axes, (column, label) in zip(figure.subplots(2, 3).flat, WANTED.items(), strict=True):
        for solver, rows in table.groupby("solver", sort=False):
            axes.plot(rows.steps, rows[column], marker="o", label=solver)
        axes.set(xscale="log", xlabel="steps", ylabel=label)
        steps = sorted(table.steps.unique())
        axes.set_xticks(steps, [str(count) for count in steps])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="quality against steps, by solver")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "benchmarks")
    parser.add_argument("--edge", type=int, default=512, help="of the phantom in pixels")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    network = load_network(ROOT / "resources/phantom.safetensors")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        raster, real = make_data(Path(folder), network, given.edge)
        for row in curves(network, raster, real):
            rows.append(row)
            words = (v if k == "solver" else f"{k} {v:.3g}" for k, v in row.items())
            print("  ".join(words), flush=True)
    table = pd.DataFrame(rows)
    table.round(4).to_csv(given.folder / "solvers.csv", index=False)
    draw_curves(table, given.folder / "solvers.png")


if __name__ == "__main__":
    main()
