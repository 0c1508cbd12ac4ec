"""How many nuclei a network finds, by the size of its pixels and patches, after the same training.

    python benchmarks/pixel_size.py [--cpu-seconds 300] [--edge-um 128]

A bin of expression is 16 pixels, so the pixel size decides how well molecules are placed. Every arm
trains a network of the same widths on the same tissue for the same seconds of CPU time, on one
thread, then draws the first window of a phantom that it never saw, in 15 steps, which the
evaluation's measures compare with the phantom's own images.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import solvers
import torch
from training_ablation import Arm, make_data, train

from teramind.engine.region import generate_region

TISSUE_UM = 460
ARMS = ((0.6, 32, 3), (0.4, 32, 3), (0.25, 32, 3), (0.25, 64, 2))
"""Pixel size in um, patch edge in pixels, and edge of a training window in patches."""


def main() -> None:
    """Train and judge the arms one after the other, print a table."""
    parser = argparse.ArgumentParser(description="nuclei by size of pixels and patches")
    parser.add_argument("--cpu-seconds", type=float, default=300, help="of every training")
    parser.add_argument("--edge-um", type=float, default=128, help="of what is drawn")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| pixel, um | patch, pixels | steps | nuclei F1 | count | r at 5 um | border ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for pixel_um, patch, window in ARMS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            size = round(TISSUE_UM / pixel_um / patch) * patch
            make_data(folder, size, pixel_um)
            trainer = Arm(folder, edge=window, patch=patch).trainer(folder)
            train(trainer, asked.cpu_seconds)
            network = trainer.averaged()
            edge = round(asked.edge_um / pixel_um / patch) * patch
            raster, real = solvers.make_data(folder / "unseen", network, edge)
            found = solvers.judge(generate_region(network, raster), real, network)
        print(
            f"| {pixel_um} | {patch} | {trainer.step} | {found['nuclei_f1']:.3f} | "
            f"{found['count_ratio']:.3f} | {found['correlation_5um']:.3f} | "
            f"{found['patch_border_ratio']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
