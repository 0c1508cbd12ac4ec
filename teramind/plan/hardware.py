"""How fast a machine runs the network: named, read from a file, or measured here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from teramind.errors import UserError
from teramind.files import read_json

TABLE = Path(__file__).parents[2] / "resources" / "hardware.json"
"""Known machines by name, each with the source of its numbers."""


Speed = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Hardware(BaseModel):
    """A machine's speed. GFLOP are 1e9 operations as `plan.flops` counts them.

    Attributes:
        device: what it is.
        matrix_peak_gflops: GFLOP per second of its matrix units in half precision, if known.
        float32_peak_gflops: the same in float32, which bounds its speed where it was not measured.
        gflops: GFLOP per second that the network reaches, by precision; may be empty where only
            the peak is known.
        source: where the numbers come from.
        memory_gib: memory of the device; None: not known.
        startup_seconds: of a job before its first patch.
        process_mib: memory of a job's process with the network loaded.
        workspace_mib: memory of the network's kernels beside it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    matrix_peak_gflops: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    float32_peak_gflops: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    gflops: dict[str, Speed] = {}
    source: str = "its file"
    memory_gib: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    startup_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    process_mib: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    workspace_mib: float | None = Field(default=None, ge=0, allow_inf_nan=False)


def known_hardware() -> dict[str, Hardware]:
    """The table of `resources/hardware.json`."""
    table: dict[str, Any] = read_json(TABLE)
    return {name: Hardware.model_validate(entry) for name, entry in table.items()}


def find_hardware(name: str) -> Hardware:
    """A machine of the table by its name, or of a JSON file by its path.

    Raises:
        UserError: when it is neither, or the file does not say how fast the machine is.
    """
    known = known_hardware()
    if name in known:
        return known[name]
    if not Path(name).is_file():
        raise UserError(f"hardware: got {name!r}; must be a JSON file or one of {', '.join(known)}")
    try:
        found = Hardware.model_validate_json(Path(name).read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        first = _first(error) if isinstance(error, ValidationError) else str(error)
        raise UserError(f"hardware {name}: not a machine's numbers: {first}") from None
    if not found.gflops and not found.matrix_peak_gflops:
        raise UserError(f"hardware {name}: must give gflops or matrix_peak_gflops")
    return found


def speed(hardware: Hardware, precision: str) -> float:
    """Operations per second of the network.

    Where float32 was not measured its peak is taken, for half precision is several times as fast.
    For half precision what was measured stands in, and where only the peak is known the share of
    it that the published run reached on A100.

    Raises:
        UserError: when none of these is known.
    """
    if precision in hardware.gflops:
        return 1e9 * hardware.gflops[precision]
    if precision == "float32":
        if not hardware.float32_peak_gflops:
            raise UserError(
                f"hardware {hardware.device}: tells nothing of float32, which generate.precision "
                "asks for; must give it in gflops, or float32_peak_gflops"
            )
        return 1e9 * hardware.float32_peak_gflops
    if hardware.gflops:
        return 1e9 * next(iter(hardware.gflops.values()))
    known = known_hardware()["a100"]
    if not hardware.matrix_peak_gflops or not known.matrix_peak_gflops:
        raise UserError(f"hardware {hardware.device}: neither gflops nor matrix_peak_gflops")
    share = known.gflops["published"] / known.matrix_peak_gflops
    return 1e9 * share * hardware.matrix_peak_gflops


def _first(error: ValidationError) -> str:
    """The first fault, behind the key that it is of."""
    fault = error.errors()[0]
    return ": ".join([*map(str, fault["loc"]), str(fault["msg"])])
