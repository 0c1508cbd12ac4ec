"""What a plan can know of the network, the tissue and the machine before the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teramind.config import Config, Train
from teramind.engine.slab import device_for
from teramind.errors import UserError
from teramind.expression.panel import read_panel
from teramind.expression.raster import Raster
from teramind.network import NetworkSpec, load_network
from teramind.network.checkpoint import read_spec
from teramind.network.published import published_folder
from teramind.plan.flops import PatchCost, patch_cost
from teramind.plan.hardware import Hardware, find_hardware
from teramind.plan.measure import measure_here
from teramind.plan.tissue import Mask, wanted_patches

PUBLISHED: dict[str, Any] = {"genes": 229, "base": 64, "embed": 512}
"""Sizes of the published network of mouse 638850, taken where there is no checkpoint yet."""
MORE_GENES = {"published:supp_m": 500, "published:supp_f": 500}
"""Genes of the published networks that read others than 229."""
WIDEST = 32
"""Patches side by side beyond which the measured speed hardly changes."""


@dataclass(frozen=True)
class Assumptions:
    """What a plan rests on besides the configuration.

    Attributes:
        spec: sizes of the network.
        cost: of its patches.
        genes: of the raster.
        hardware: the machine.
        wanted: patches to draw per window; None: the raster is not there, all of the region.
        workers: jobs that run at a time.
    """

    spec: NetworkSpec
    cost: PatchCost
    genes: int
    hardware: Hardware
    wanted: Sequence[Mask] | None
    workers: int


def assume(config: Config, *, hardware: str | None, workers: int) -> tuple[Assumptions, list[str]]:
    """Gather what the plan rests on.

    Args:
        config: the configuration.
        hardware: name in the table or JSON file; None measures a few patches here.
        workers: jobs that run at a time.

    Returns:
        The assumptions, and a line for each that the user should know to be one.

    Raises:
        UserError: when checkpoint, raster or hardware cannot be read, or what is to be measured
            here would be refused.
    """
    notes: list[str] = []
    spec, layout = _spec(config, notes), config.layout()
    cost = patch_cost(spec)
    path = config.files.raster
    raster = Raster.open(path) if path.exists() else None
    if raster is None:
        notes.append("no expression raster yet: all of the region is taken for tissue")
    steps = max(len(layout.phase_steps(phase)) for phase in range(layout.phases))
    frame = min(layout.slab, layout.region.width) // layout.patch + 2 * (steps - 1)
    if hardware:
        machine = find_hardware(hardware)
    else:
        notes += _replaced_here(config)
        machine = measure_here(
            spec,
            cost,
            threads=config.generate.threads,
            gpus=config.generate.gpus,
            precision=config.generate.precision,
            width=min(frame, layout.bounds.width // layout.patch, WIDEST),
        )
    precision = config.generate.precision
    if precision not in machine.gflops:
        known = ", ".join(machine.gflops) or "none"
        most = "at most its peak, which is assumed" if precision == "float32" else "assumed"
        notes.append(f"speed of {machine.device} in {precision} is {most}; known: {known}")
    wanted = wanted_patches(raster, layout, margin=config.generate.margin) if raster else None
    genes = len(raster.panel) if raster else _panel_length(config, spec)
    return Assumptions(spec, cost, genes, machine, wanted, workers), notes


def _replaced_here(config: Config) -> Iterator[str]:
    """A line where this machine has no GPU to measure.

    Raises:
        UserError: when a job would be refused here.
    """
    try:
        device = device_for(config)
    except UserError as error:
        raise UserError(f"{error}, or name the machine by --hardware") from None
    if config.generate.gpus and device == "cpu":
        yield "no GPU here: time and memory are those of this CPU; name the GPU by --hardware"


def _spec(config: Config, notes: list[str]) -> NetworkSpec:
    """Sizes of the network that the configuration names."""
    asked = config.network
    known: dict[str, Any] = {
        "patch": asked.patch,
        "sections": asked.sections,
        "stains": asked.stains,
    }
    if config.train is not None and config.trains:
        genes = len(read_panel(Path(str(config.expression.panel))))
        sizes: Train | NetworkSpec = config.train
        if config.train.start and Path(config.train.start).exists():
            sizes = _spec_of(Path(config.train.start))
        return NetworkSpec(**known, genes=genes, base=sizes.base, embed=sizes.embed)
    path, converted = Path(asked.checkpoint), config.files.converted
    if config.converts and converted.exists():
        path = converted
    if not path.exists() or path.suffix == ".zip":
        notes.append(f"no checkpoint of {path} yet: sizes of the published network are taken")
        return NetworkSpec(**known, **PUBLISHED | {"genes": _published_genes(path)})
    return _spec_of(path)


def _published_genes(checkpoint: Path) -> int:
    """Genes of a published network that is not here, by its name or that of its folder."""
    folder = checkpoint.parent if checkpoint.suffix else checkpoint
    named = published_folder(folder.name)
    return named.genes if named else MORE_GENES.get(str(checkpoint), PUBLISHED["genes"])


def _spec_of(path: Path) -> NetworkSpec:
    """Sizes of the network in a file."""
    own = read_spec(path) if path.suffix == ".safetensors" else None
    return own or load_network(path).spec


def _panel_length(config: Config, spec: NetworkSpec) -> int:
    panel = config.expression.panel
    return len(read_panel(Path(panel))) if panel and Path(panel).exists() else spec.genes
