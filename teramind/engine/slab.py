"""One slab's job in one phase: what it reads, and what it leaves to the next one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from teramind.config import Config
from teramind.engine.generate import Generator
from teramind.engine.identity import run_digest, state_identity
from teramind.engine.noise import make_noise
from teramind.engine.phase_plane import Progress
from teramind.engine.solver import SOLVERS, sampling_steps
from teramind.engine.state import SavedStates, load_parts, save_states
from teramind.errors import UserError
from teramind.expression.raster import Raster
from teramind.geometry import Rect, Slab
from teramind.network import Network, load_network
from teramind.network.device import require_bfloat16, where
from teramind.network.fast import for_inference
from teramind.network.precision import set_precision


def open_inputs(config: Config, *, checkpoint: Path, raster: Path) -> tuple[Network, Raster]:
    """Load the network and open the raster for a configuration.

    Raises:
        UserError: when checkpoint, raster and configuration do not fit each other.
    """
    network, pixel = load_network(checkpoint), config.plane.pixel_size_um
    misfits = network.spec.misfits(checkpoint, pixel_size_um=pixel, **config.network.sizes)
    if lines := [*misfits]:
        raise UserError(*lines)
    expression = Raster.open(raster)
    network.spec.require_panel(expression.panel, raster)
    return network, expression


def make_generator(config: Config, *, checkpoint: Path, raster: Path) -> Generator:
    """What generates a configuration's slabs.

    Raises:
        UserError: when checkpoint, raster and configuration do not fit each other, or the machine
            the precision asked for.
    """
    run, device = config.generate, device_for(config)
    network, expression = open_inputs(config, checkpoint=checkpoint, raster=raster)
    spec = network.spec
    noise = make_noise(
        run.noise,
        seed=run.seed,
        stains=len(spec.stains),
        patch=spec.patch,
        windows=config.windows,
    )
    set_precision(network, getattr(torch, run.precision))
    return Generator(
        network=for_inference(network.to(device)),
        expression=expression,
        noise=noise,
        layout=config.layout(),
        schedule=sampling_steps(run.steps, run.solver),
        margin=run.margin,
        solver=SOLVERS[run.solver],
    )


def device_for(config: Config) -> str:
    """Where the network runs. Raises UserError when it cannot have the precision asked for."""
    run = config.generate
    device = "cuda" if run.gpus and torch.cuda.is_available() else "cpu"
    if run.precision == "bfloat16":
        require_bfloat16(device, key="generate.precision")
    return device


def generate_slab(
    config: Config,
    slab: Slab,
    phase: int,
    *,
    checkpoint: Path,
    raster: Path,
    sources: Sequence[Path],
    output: Path,
) -> None:
    """Take one slab through one phase, window by window.

    Args:
        config: the configuration.
        slab: which.
        phase: which.
        checkpoint: the network.
        raster: the expression.
        sources: state files of the phase before, of the slab and those around it; none in phase 0.
        output: state file to write.
    """
    generator = make_generator(config, checkpoint=checkpoint, raster=raster)
    here = where(device_for(config), gpus=config.generate.gpus, key="generate.gpus")
    print(f"slab {slab}, phase {phase + 1}: {here}", flush=True)
    run, layout = run_digest(config, checkpoint=checkpoint, raster=raster), generator.layout
    singles = layout.singles(slab)

    def before(single: Slab, rect: Rect) -> NDArray[np.floating]:
        """The state of one window before the phase; the parts it is made of are not kept."""
        if phase == 0:
            return generator.initial(single.window)(rect)
        parts = []
        for path in sources:
            identity = state_identity(Slab.parse(path.stem), phase - 1, run)
            parts += load_parts(path, window=single.window, identity=identity, near=rect)
        return SavedStates(parts)(rect)

    progress = log_progress(sum(generator.work(single, phase) for single in singles))
    save_states(
        output,
        (generator.run_phase(one, phase, partial(before, one), progress) for one in singles),
        windows=layout.windows_of(slab),
        rect=layout.core(slab, phase),
        identity=state_identity(slab, phase, run),
        dtype=config.generate.state,
        margin=layout.read_margin(phase),
    )


def log_progress(total: int, seconds: float = 10.0) -> Progress:
    """Report patches done, rate and time left to standard output every few seconds."""
    start = last = time.monotonic()
    done = 0

    def report(patches: int) -> None:
        nonlocal done, last
        done += patches
        now = time.monotonic()
        if now - last >= seconds or (patches and done == total):
            rate, last = done / max(now - start, 1e-9), now
            left = (total - done) / rate
            print(f"{done}/{total} patches, {rate:.1f}/s, {left:.0f} s left", flush=True)

    return report
