"""One slab's jobs: a phase of generation, and stitching the last phase into the volume."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from teramind.config import Config
from teramind.diffusion import sampling_steps, to_grey
from teramind.errors import UserError
from teramind.expression.raster import Raster
from teramind.files import digest
from teramind.generate import Generator
from teramind.geometry import Rect, Slab
from teramind.network import Network, load_network
from teramind.network.blocks import multiply_in
from teramind.network.fast import for_inference
from teramind.phase_plane import Progress
from teramind.region import check_panel, make_noise
from teramind.solver import SOLVERS
from teramind.state import SavedStates, load_parts, load_state, save_state


def run_digest(config: Config, checkpoint: Path) -> str:
    """What a state's run depends on, as one digest: settings and weights."""
    weights = checkpoint / "last.ckpt" if checkpoint.is_dir() else checkpoint
    return digest((json.dumps(config.identity(), sort_keys=True) + digest(weights)).encode())


def state_identity(slab: Slab, phase: int, run: str) -> dict[str, str]:
    """What a state file must say it is."""
    return {"slab": str(slab), "phase": str(phase), "run": run}


def open_inputs(config: Config, *, checkpoint: Path, raster: Path) -> tuple[Network, Raster]:
    """Load the network and open the raster for a configuration.

    Raises:
        UserError: when checkpoint, raster and configuration do not fit each other.
    """
    network = load_network(checkpoint)
    spec, asked = network.spec, config.network
    for key, found, wanted in (
        ("patch", spec.patch, asked.patch),
        ("sections", spec.sections, asked.sections),
        ("stains", list(spec.stains), list(asked.stains)),
    ):
        if found != wanted:
            raise UserError(f"network.{key}: {wanted}, but the checkpoint {checkpoint} has {found}")
    if spec.pixel_size_um and abs(spec.pixel_size_um / config.plane.pixel_size_um - 1) > 0.05:
        raise UserError(
            f"plane.pixel_size_um: {config.plane.pixel_size_um}, but the checkpoint {checkpoint} "
            f"was trained at {spec.pixel_size_um}"
        )
    expression = Raster.open(raster)
    check_panel(spec, expression.panel, str(raster))
    return network, expression


def make_generator(config: Config, *, checkpoint: Path, raster: Path) -> Generator:
    """What generates a configuration's slabs.

    Raises:
        UserError: when checkpoint, raster and configuration do not fit each other, or the machine
            the precision asked for.
    """
    run, device = config.generate, device_for(config)
    network, expression = open_inputs(config, checkpoint=checkpoint, raster=raster)
    noise = make_noise(run.noise, seed=run.seed, spec=network.spec, windows=config.windows)
    multiply_in(network, getattr(torch, run.precision))
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
    if run.precision == "bfloat16" and device == "cpu" and not has_bfloat16():
        raise UserError(
            "generate.precision: bfloat16, but this CPU has no instructions for it and would be "
            "many times slower than with float32; use float32"
        )
    return device


def has_bfloat16() -> bool:
    """Whether the CPU multiplies matrices of bfloat16 by instructions of its own."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


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
    """Take one slab through one phase.

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
    run = run_digest(config, checkpoint)
    if phase == 0:
        read = generator.initial(slab.window)
    else:
        near = generator.layout.frame(slab, phase)
        read = SavedStates(
            [
                part
                for path in sources
                for part in load_parts(
                    path,
                    identity=state_identity(Slab.parse(path.stem), phase - 1, run),
                    near=near,
                )
            ]
        )
    progress = log_progress(generator.work(slab, phase))
    state = generator.run_phase(slab, phase, read, progress)
    save_state(
        output,
        state,
        rect=generator.layout.core(slab, phase),
        identity=state_identity(slab, phase, run),
        dtype=config.generate.state,
        margin=generator.layout.margin(phase),
    )


def log_progress(total: int, seconds: float = 10.0) -> Progress:
    """Report patches done, rate and time left to standard output every few seconds."""
    start = last = time.monotonic()
    done = 0

    def report(patches: int) -> None:
        nonlocal done, last
        done += patches
        now = time.monotonic()
        if now - last >= seconds or done == total:
            rate, last = done / max(now - start, 1e-9), now
            left = (total - done) / rate
            print(f"{done}/{total} patches, {rate:.1f}/s, {left:.0f} s left", flush=True)

    return report


def stitch_slab(
    config: Config,
    slab: Slab,
    *,
    checkpoint: Path,
    state: Path,
    right: Path | None,
    below: Path | None,
    volume: Path,
) -> dict[str, Any]:
    """Write a slab's last state into the volume and measure its seams.

    Args:
        config: the configuration.
        slab: which.
        checkpoint: the network, for the identity of the states.
        state: its state after the last phase.
        right: the state of the slab right of it, if there is one.
        below: the state of the slab below it, if there is one.
        volume: the OME-Zarr volume.

    Returns:
        The receipt: slab, shards with checksums, seam numbers.
    """
    from teramind.volume import write_slab

    layout, run = config.layout(), run_digest(config, checkpoint)
    last = layout.phases - 1
    rect, own = load_state(state, identity=state_identity(slab, last, run))

    def border(path: Path | None, edge: Rect, dy: int, dx: int) -> NDArray[np.float32] | None:
        """The neighbour's row or column of pixels next to the slab."""
        if path is None:
            return None
        neighbour = slab._replace(row=slab.row + dy, col=slab.col + dx)
        identity = state_identity(neighbour, last, run)
        return SavedStates(load_parts(path, identity=identity, near=edge))(edge)

    sections = layout.windows.images(slab.window)
    kept = [z for z in sections if z < layout.windows.first + layout.windows.generated]
    grey = to_grey(np.nan_to_num(own, nan=-1.0))
    voxels = grey.reshape(len(config.network.stains), len(sections), rect.height, rect.width)
    shards = write_slab(
        volume,
        voxels=np.ascontiguousarray(voxels[:, : len(kept)]),
        z=sections.start - layout.windows.first,
        y=rect.y - layout.region.y,
        x=rect.x - layout.region.x,
    )
    seams = measure_seams(
        own,
        right=border(right, Rect(rect.y, rect.right, rect.height, 1), 0, 1),
        below=border(below, Rect(rect.bottom, rect.x, 1, rect.width), 1, 0),
        patch=layout.patch,
    )
    return {"slab": str(slab), "shards": shards, "seams": seams}


def measure_seams(
    own: NDArray[np.float32],
    *,
    right: NDArray[np.float32] | None,
    below: NDArray[np.float32] | None,
    patch: int,
) -> dict[str, float | int | None]:
    """Grey-level steps across the slab's right and lower border, and inside its patches.

    Args:
        own: state (stain z, y, x), NaN in background.
        right: state of the slab to the right, its first column at least.
        below: state of the slab below, its first row at least.
        patch: patch edge P; the steps inside are taken a quarter of it from the borders.

    Returns:
        `border` and `inside`: mean absolute difference of the pixels on either side, in grey
        levels, None where nothing could be measured; `pixels`: pairs measured on the border.
    """
    quarter = patch // 4
    border, inside = [], []
    for neighbour, axis in ((right, 2), (below, 1)):
        if neighbour is not None:
            turned, other = (np.moveaxis(a, axis, 0) for a in (own, neighbour))
            border.append(np.abs(turned[-1] - other[0]).ravel())
            inside.append(np.abs(turned[-quarter] - turned[-quarter - 1]).ravel())

    def mean(parts: list[NDArray[np.float32]]) -> tuple[float | None, int]:
        values = np.concatenate(parts) if parts else np.empty(0)
        values = values[np.isfinite(values)]
        return (round(float(values.mean()) * 127.5, 4) if len(values) else None), len(values)

    (at_border, pixels), (within, _) = mean(border), mean(inside)
    return {"border": at_border, "inside": within, "pixels": pixels}
