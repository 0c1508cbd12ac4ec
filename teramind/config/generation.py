"""Configuration of the volume, the network and the generation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from teramind.config.values import (
    Count,
    Edge,
    Micrometres,
    Name,
    NoiseName,
    PathText,
    StoredType,
    StrictModel,
    Whole,
    no_truth,
)
from teramind.geometry import Rect
from teramind.schedule import SolverName


class Plane(StrictModel):
    """The pixel coordinate system and the volume's bounds in it."""

    y: Whole = Field(0, ge=0, le=1 << 24, description="first row of the volume")
    x: Whole = Field(0, ge=0, le=1 << 24, description="first column of the volume")
    height: Edge = Field(description="rows of the volume, pixels")
    width: Edge = Field(description="columns of the volume, pixels")
    sections: Count = Field(le=10_000, description="sections with expression")
    pixel_size_um: Micrometres = Field(description="edge of a pixel")
    section_spacing_um: Micrometres = Field(description="distance of neighbouring sections")

    @property
    def rect(self) -> Rect:
        """The volume's bounds as given, not yet rounded to patches."""
        return Rect(self.y, self.x, self.height, self.width)


class NetworkSection(StrictModel):
    """The network and the sizes that the plan of jobs depends on."""

    checkpoint: PathText = Field(description="file, published folder, or `train`")
    patch: Literal[32, 64, 128] = Field(description="patch edge P in pixels")
    sections: Annotated[Literal[1, 4, 8, 16], BeforeValidator(no_truth)] = Field(
        4, description="expression sections S in a window"
    )
    stains: tuple[Name, ...] = Field(("DAPI", "PolyT"), min_length=1, max_length=2)

    @property
    def sizes(self) -> dict[str, Any]:
        """What a checkpoint must agree with."""
        return {"patch": self.patch, "sections": self.sections, "stains": list(self.stains)}


class Generate(StrictModel):
    """How the volume is generated."""

    slab: Edge = Field(description="slab edge in pixels, a multiple of the patch edge")
    windows: Count = Field(1, description="z-windows of a slab, drawn one after the other")
    steps: Count = Field(15, description="sampling steps")
    solver: SolverName = Field("published", description="how a step is taken")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the convolutions; the state is float32 in either"
    )
    phases: Count = Field(3, description="exchanges with neighbouring slabs, 1 .. steps")
    seed: Whole = Field(0, ge=0, lt=2**64, description="of the initial noise")
    noise: NoiseName = Field("philox")
    margin: Whole = Field(1, ge=0, le=64, description="patches of background kept around tissue")
    state: StoredType = Field("float32", description="states between phases")
    threads: Count = Field(1, description="CPU threads of one slab job")
    gpus: Whole = Field(0, ge=0, le=1, description="GPUs of one slab job")
    memory_mb: Count = Field(
        4000, description="a slab job asks for this and for its states; `teramind plan` knows more"
    )
    minutes: Count = Field(
        240, description="time that a slab job asks a cluster for; a second try asks for twice that"
    )
