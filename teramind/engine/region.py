"""A region in memory in one call, for notebooks; cluster work goes through the workflow."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress as Bar

from teramind.config.values import Bounds, NoiseName
from teramind.engine.generate import Generator
from teramind.engine.noise import make_noise
from teramind.engine.phase_plane import Progress
from teramind.engine.solver import SOLVERS, sampling_steps
from teramind.engine.state import to_grey
from teramind.errors import UserError
from teramind.expression.raster import Raster
from teramind.geometry import Layout, Rect, Windows
from teramind.network import Network, NetworkSpec
from teramind.network.fast import for_inference
from teramind.network.precision import keep_float32
from teramind.schedule import SolverName


def generate_region(
    network: Network,
    raster: str | Path,
    *,
    region: tuple[int, int, int, int] | None = None,
    bounds: Bounds = "volume",
    steps: int = 15,
    solver: SolverName = "published",
    seed: int = 0,
    noise: NoiseName = "philox",
    margin: int = 1,
    raw: bool = False,
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Generate a region of the plane, all sections, in memory.

    Args:
        network: from `load_network`.
        raster: path of an expression raster.
        region: (y, x, height, width) in pixels of the plane; None for the whole volume that the
            raster was made for.
        bounds: where the state stops being generated and is the constant -1: at the edges of the
            raster's "volume", or at those of the "region", as the published ROI script does.
        steps: sampling steps.
        solver: how a step is taken.
        seed: of the noise; not used with published noise.
        noise: "philox", or "published" to repeat published volumes.
        margin: patches of background that are drawn around tissue.
        raw: return the state instead of grey levels.

    Returns:
        (c, z, y, x) uint8 grey levels with background 0, or with `raw` float32 in [-1, 1] with
        background -1.

    Raises:
        UserError: when the raster does not fit the network or holds too small a part of the plane,
            or an argument is not as above.
    """
    _require_choices(
        bounds=(bounds, get_args(Bounds)),
        noise=(noise, get_args(NoiseName)),
        solver=(solver, SOLVERS),
    )
    if steps < 1:
        raise UserError(f"steps: {steps}; must be at least 1")
    if not 0 <= seed < 2**64:
        raise UserError(f"seed: {seed}; must lie between 0 and 2^64 - 1")
    expression = Raster.open(raster)
    spec = network.spec
    spec.require_panel(expression.panel, raster)
    _require_pixels(spec, expression, raster)
    keep_float32()
    wanted, layout = _place(spec, expression, raster, region, bounds, steps)
    _require_expression(layout, expression, raster, margin)
    generator = Generator(
        network=for_inference(network),
        expression=expression,
        noise=make_noise(
            noise,
            seed=seed,
            stains=len(spec.stains),
            patch=spec.patch,
            windows=layout.windows,
        ),
        layout=layout,
        schedule=sampling_steps(steps, solver),
        margin=margin,
        solver=SOLVERS[solver],
    )
    state = _all_windows(generator)[:, :, *wanted.within(layout.region)]
    return state.astype(np.float32) if raw else to_grey(state)


def _require_choices(**arguments: tuple[str, Collection[str]]) -> None:
    """Refuse arguments (name=(value, choices)) that are none of their choices."""
    for name, (value, choices) in arguments.items():
        if value not in choices:
            raise UserError(
                f"{name}: got {value!r}; must be one of {', '.join(map(repr, choices))}"
            )


def _require_pixels(spec: NetworkSpec, expression: Raster, raster: str | Path) -> None:
    if not spec.fits_pixels(expression.pixel_size_um):
        raise UserError(
            f"raster {raster}: pixels of {expression.pixel_size_um} um, but the network was "
            f"trained at {spec.pixel_size_um}"
        )


def _place(
    spec: NetworkSpec,
    expression: Raster,
    raster: str | Path,
    region: tuple[int, int, int, int] | None,
    bounds: str,
    steps: int,
) -> tuple[Rect, Layout]:
    """The region in pixels, and the lattice around it; see `generate_region`."""
    volume = expression.bounds.rounded_out(spec.patch)
    wanted = Rect(*region) if region else volume
    if wanted.cut(volume) != wanted:
        raise UserError(
            f"region {tuple(wanted)}: must hold pixels (y, x, height, width), all inside the "
            f"raster's {tuple(volume)}"
        )
    around = wanted.rounded_out(spec.patch)
    if bounds == "region" and around != wanted:
        raise UserError(
            f"region {tuple(wanted)}: as bounds its edges must be multiples of the patch edge "
            f"{spec.patch}"
        )
    windows = Windows(sections=spec.sections, planes=expression.sections)
    if not len(windows):
        raise UserError(
            f"raster {raster}: {expression.sections} sections are too few for windows of "
            f"{spec.sections}"
        )
    edges = around if bounds == "region" else volume
    return wanted, Layout.whole(
        around, patch=spec.patch, windows=windows, steps=steps, bounds=edges
    )


def _require_expression(
    layout: Layout, expression: Raster, raster: str | Path, margin: int
) -> None:
    """Refuse a raster of a part of the plane where drawing reads more: it would read nothing."""
    computed = layout.computed(next(layout.slabs(0)), 0)
    for read in (computed.grown(layout.patch // 2), layout.region.grown(margin * layout.patch)):
        needed = read.cut(expression.bounds)
        if needed.cut(expression.extent) != needed:
            raise UserError(
                f"raster {raster}: holds expression of {tuple(expression.extent)} only, but "
                f"{layout.steps} steps of region {tuple(layout.region)} read {tuple(needed)}; bin "
                "a raster of this region"
            )


def _all_windows(generator: Generator) -> NDArray[np.float32]:
    """State (c, z, y, x) of the whole region, background -1."""
    layout, spec = generator.layout, generator.network.spec
    parts = []
    with _progress(generator) as progress:
        for slab in layout.slabs(0):
            state = generator.run_phase(slab, 0, generator.initial(slab.window), progress)
            parts.append(state.reshape(len(spec.stains), spec.images, *state.shape[1:]))
    state = np.concatenate(parts, axis=1)[:, : layout.windows.generated]
    return np.nan_to_num(state, nan=-1.0)


@contextmanager
def _progress(generator: Generator) -> Iterator[Progress]:
    """A bar over the patches of all steps and windows."""
    total = sum(generator.work(slab, 0) for slab in generator.layout.slabs(0))
    with Bar(transient=True) as bar:
        task = bar.add_task("patches", total=total)
        yield lambda patches: bar.advance(task, patches)
