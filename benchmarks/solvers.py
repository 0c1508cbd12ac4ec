"""How close each solver comes to a run of 200 steps, against the number of steps.

The bundled network draws a small region of the bundled example with every solver and number of
steps, from the same noise. Writes a table and a picture: the root mean square difference in grey
levels from the published solver's 200 steps.

    python benchmarks/solvers.py [FOLDER, default benchmarks] [--edge 64]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from teramind.errors import UserError
from teramind.expression.bin_expression import bin_expression
from teramind.expression.molecules import MoleculeColumns, MoleculeSettings
from teramind.geometry import Rect
from teramind.network import Network, load_network
from teramind.region import generate_region
from teramind.solver import SOLVERS

ROOT = Path(__file__).parents[1]
STEPS = (5, 7, 10, 15, 20, 25, 50)
REFERENCE = 200
PLANE = Rect(0, 0, 512, 768)


def make_raster(folder: Path, network: Network) -> Path:
    """Bin the bundled example's molecules of two sections, one window."""
    raster, source = folder / "raster.zarr", folder / "molecules.parquet"
    molecules = pd.read_parquet(ROOT / "resources/example/molecules.parquet")
    molecules[molecules.section < 2].to_parquet(source)
    bin_expression(
        source=source,
        kind="molecules",
        raster_path=raster,
        panel=list(network.spec.panel),
        sections=2,
        extent=PLANE,
        panel_table_path=folder / "panel.tsv",
        pixel_size_um=network.spec.pixel_size_um,
        settings=MoleculeSettings(columns=MoleculeColumns(x="x_um", y="y_um", section="section")),
    )
    return raster


def curves(network: Network, raster: Path, region: tuple[int, int, int, int]) -> pd.DataFrame:
    """Differences of all runs: solver, steps, difference in grey levels."""

    def draw(steps: int, solver: str) -> NDArray[np.float32]:
        return generate_region(
            network,
            raster,
            region=region,
            bounds="region",
            steps=steps,
            solver=solver,  # type: ignore[arg-type]
            raw=True,
        )

    reference, rows = draw(REFERENCE, "published"), []
    for solver in SOLVERS:
        last = (REFERENCE,) if solver == "dpm-solver++" else ()  # is it the same limit?
        for steps in (*STEPS, *last):
            try:
                difference = draw(steps, solver) - reference
            except UserError:  # no integer stride gives this number
                continue
            rows.append((solver, steps, 127.5 * float(np.sqrt((difference**2).mean()))))
            print(f"{solver:14} {steps:4} steps: {rows[-1][2]:6.2f} grey levels", flush=True)
    return pd.DataFrame(rows, columns=["solver", "steps", "difference"])


def draw_curves(table: pd.DataFrame, path: Path) -> None:
    """One line per solver."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for solver, rows in table[table.steps < REFERENCE].groupby("solver", sort=False):
        axes.plot(rows.steps, rows.difference, marker="o", label=solver)
    axes.set(xscale="log", yscale="log", xlabel="steps")
    axes.set_xticks(STEPS, [str(steps) for steps in STEPS])
    axes.minorticks_off()
    axes.set_ylabel(f"difference from {REFERENCE} steps, grey levels (rms)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="quality against steps, by solver")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "benchmarks")
    parser.add_argument("--edge", type=int, default=64, help="of the region in pixels")
    given = parser.parse_args()
    torch.set_num_threads(1)
    network = load_network(ROOT / "resources/phantom.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        raster = make_raster(Path(folder), network)
        table = curves(network, raster, (192, 256, given.edge, given.edge))
    table.round(3).to_csv(given.folder / "solvers.csv", index=False)
    draw_curves(table, given.folder / "solvers.png")


if __name__ == "__main__":
    main()
