"""Which noise costs the bundled network its nuclei: it starts from ever less noisy true images.

    python benchmarks/late_start.py [--edge 384] [--threads 2]

The first window of a phantom that training never saw is given the noise of a timestep, and the
network takes it through the steps from there on. What one line gains on the line before is what the
network loses in the steps between. At the first, next to nothing is left of the image.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from solvers import PHANTOM_SEED, ROOT, judge, make_data

from teramind.engine.generate import Generator
from teramind.engine.noise import PhiloxNoise
from teramind.engine.solver import Step, sampling_steps
from teramind.engine.state import to_grey
from teramind.expression.raster import Raster
from teramind.geometry import Layout, Rect, Windows
from teramind.network import Network, load_network
from teramind.network.fast import for_inference

SKIPPED = (0, 4, 6, 8, 10, 12, 13)
"""Steps left out before each start."""


class NoisyTruth:
    """True images (c, z, y, x) with the noise of a timestep; see `teramind.engine.noise.Noise`."""

    def __init__(self, images: NDArray[np.uint8], noise: PhiloxNoise, alpha: float) -> None:
        self.images, self.noise, self.alpha = images, noise, alpha

    def __call__(self, rect: Rect, sections: Sequence[int]) -> NDArray[np.float32]:
        """The noisy images of `rect`: (stain, z, height, width)."""
        true = self.images[:, list(sections), *rect.slices] / np.float32(127.5) - 1
        noisy = self.alpha**0.5 * true + (1 - self.alpha) ** 0.5 * self.noise(rect, sections)
        return noisy.astype(np.float32)


def finish(
    network: Network, raster: Path, real: NDArray[np.uint8], schedule: list[Step]
) -> NDArray[np.uint8]:
    """Images (c, z, y, x) after `schedule`, from the true ones with the noise of its first step."""
    spec, whole = network.spec, Rect(0, 0, *real.shape[2:])
    noise = PhiloxNoise(seed=PHANTOM_SEED, stains=len(spec.stains), patch=spec.patch)
    windows = Windows(sections=spec.sections, planes=spec.images)
    layout = Layout.whole(whole, patch=spec.patch, windows=windows, steps=len(schedule))
    generator = Generator(
        network=for_inference(network),
        expression=Raster.open(raster),
        noise=NoisyTruth(real, noise, schedule[0].alpha),
        layout=layout,
        schedule=schedule,
    )
    (slab,) = layout.slabs(0)
    state = generator.run_phase(slab, 0, generator.initial(slab.window))
    return to_grey(state).reshape(real.shape)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="what the network loses, by timestep")
    parser.add_argument("--edge", type=int, default=384, help="of the phantom in pixels")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    network = load_network(ROOT / "resources/phantom.safetensors")
    steps = sampling_steps(15)
    with tempfile.TemporaryDirectory() as folder:
        raster, real = make_data(Path(folder), network, given.edge)
        print("| first timestep | nuclei F1 | count | border ratio |")
        print("| --- | --- | --- | --- |")
        for skipped in SKIPPED:
            found = judge(finish(network, raster, real, steps[skipped:]), real, network)
            print(
                f"| {steps[skipped].t} | {found['nuclei_f1']:.3f} | {found['count_ratio']:.3f} | "
                f"{found['patch_border_ratio']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
