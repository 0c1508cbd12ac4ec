"""The workflow's configuration: one typed model per section, every key with its meaning.

Validation collects all problems and names each key, what it got and what it may be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from teramind.errors import UserError
from teramind.geometry import Layout, Rect, Windows

Box = Annotated[tuple[int, int, int, int], Field(description="y, x, height, width in pixels")]
Count = Annotated[int, Field(ge=1)]
Micrometres = Annotated[float, Field(gt=0, allow_inf_nan=False)]

FROM_TRAINING = "train"
"""Value of `network.checkpoint` that asks the workflow to train the network first."""


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Expression(Section):
    """Where the molecules come from."""

    source: str = Field(min_length=1, description="file or folder with the expression")
    panel: str | None = Field(None, description="gene list; by default the checkpoint's own")
    synonyms: str | None = Field(None, description="TSV: name in the data, name in the panel")
    minimum_overlap: float = Field(0.5, ge=0, le=1, description="panel genes that must be found")
    outside: Literal["error", "skip"] = Field(
        "error", description="molecules outside the plane: refuse above 1 %, or cut them off"
    )
    origin: tuple[float, float] = Field((0.0, 0.0), description="y, x of pixel (0, 0)")


class MoleculeExpression(Expression):
    """A molecule table, CSV, CSV.gz or Parquet."""

    kind: Literal["molecules"]
    preset: Literal["merscope", "xenium"] | None = Field(None, description="known column names")
    gene: str = Field("gene", description="column of gene names")
    x: str = Field("x", description="column of x")
    y: str = Field("y", description="column of y")
    section: str | None = Field(None, description="column of the section; none: one section")
    units: Literal["um", "pixel"] = Field("um", description="units of x, y and origin")
    section_values: tuple[str | int | float, ...] | None = Field(
        None, description="values of the section column in z order; none: numbers from 0"
    )


class CellExpression(Expression):
    """Cells x genes in AnnData."""

    kind: Literal["cells"]
    spatial_key: str = Field("spatial", description="entry of obsm with the centres, x first")
    section: str | None = Field(None, description="column of obs that tells the section")
    section_values: tuple[str | int | float, ...] | None = Field(
        None, description="values of the section column in z order"
    )
    layer: str | None = Field(None, description="layer with the counts; none: X")
    radius_um: Micrometres = Field(5.0, description="disc over which a cell's counts are spread")
    units: Literal["um", "pixel"] = Field("um", description="units of centres and origin")


class TileExpression(Expression):
    """A folder of the published sparse tiles."""

    kind: Literal["tiles"]
    genes: Count = Field(500, description="genes per section on the tiles' last axis")


class Plane(Section):
    """The pixel coordinate system and the volume's bounds in it."""

    y: int = Field(0, ge=0, description="first row of the volume")
    x: int = Field(0, ge=0, description="first column of the volume")
    height: Count = Field(description="rows of the volume, pixels")
    width: Count = Field(description="columns of the volume, pixels")
    sections: Count = Field(description="sections with expression")
    pixel_size_um: Micrometres = Field(description="edge of a pixel")
    section_spacing_um: Micrometres = Field(description="distance of neighbouring sections")

    @property
    def rect(self) -> Rect:
        """The volume's bounds as given, not yet rounded to patches."""
        return Rect(self.y, self.x, self.height, self.width)


class NetworkSection(Section):
    """The network and the sizes that the plan of jobs depends on."""

    checkpoint: str = Field(min_length=1, description="file, published folder, or `train`")
    patch: Literal[32, 64, 128] = Field(description="patch edge P in pixels")
    sections: Literal[1, 4, 8, 16] = Field(4, description="expression sections S in a window")
    stains: tuple[str, ...] = Field(("DAPI", "PolyT"), min_length=1, max_length=2)


class Generate(Section):
    """How the volume is generated."""

    slab: Count = Field(description="slab edge in pixels, a multiple of the patch edge")
    steps: Count = Field(15, description="sampling steps")
    phases: Count = Field(3, description="exchanges with neighbouring slabs, 1 .. steps")
    seed: int = Field(0, ge=0, lt=2**64, description="of the initial noise")
    noise: Literal["philox", "published"] = Field("philox")
    margin: int = Field(1, ge=0, le=64, description="patches of background kept around tissue")
    state: Literal["float32", "float16"] = Field("float32", description="states between phases")
    threads: Count = Field(1, description="CPU threads of one slab job")
    gpus: int = Field(0, ge=0, le=1, description="GPUs of one slab job")


class Reference(Section):
    """Real images of the same plane, to train on and to compare with."""

    images: str = Field(min_length=1, description="OME-TIFF, uint8")
    holdout: Box | None = Field(None, description="rectangle that training never sees")


class Phantom(Section):
    """Made-up tissue in the place of real images and molecules."""

    height: Count
    width: Count
    seed: int = Field(0, ge=0)


class Train(Section):
    """How to learn a checkpoint; needs `reference`."""

    base: Annotated[int, Field(ge=2, multiple_of=2)] = Field(8, description="channels at full size")
    embed: Count = Field(64, description="width of the time embedding")
    steps: Count = Field(2000, description="training steps")
    batch: Count = Field(2, description="windows per step")
    window: Annotated[int, Field(ge=2)] = Field(4, description="patches along a window's edge")
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights")
    loss: Literal["shifted", "published"] = Field("shifted")
    seed: int = Field(0, ge=0)
    save_minutes: float = Field(5.0, gt=0, description="time between resumable states")
    weights: Literal["float32", "float16"] = Field("float32", description="stored precision")
    licence: str | None = Field(None, description="licence of the weights")
    threads: Count = Field(2)
    gpus: int = Field(0, ge=0, le=1)


class Config(Section):
    """The whole configuration."""

    title: str = Field("Virtual brain", description="heading of the report")
    results: str = Field("results", min_length=1, description="folder for everything made")
    expression: Annotated[
        MoleculeExpression | CellExpression | TileExpression, Field(discriminator="kind")
    ]
    plane: Plane
    region: Literal["all"] | Box = Field("all", description="part of the plane to generate")
    bounds: Literal["volume", "region"] = Field(
        "volume", description="where the state ends: at the volume's edge or the region's"
    )
    network: NetworkSection
    generate: Generate
    reference: Reference | None = None
    phantom: Phantom | None = None
    train: Train | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        if self.trains and (self.train is None or self.reference is None):
            raise ValueError("network.checkpoint: `train` needs the sections train and reference")
        if self.trains and self.expression.panel is None:
            raise ValueError("expression.panel: training needs a gene list")
        if self.region != "all" and self.bounds == "region":
            box = Rect(*self.region)
            if box.rounded_out(self.network.patch) != box:
                raise ValueError(
                    f"region: {list(box)} as bounds must have edges that are multiples of "
                    f"network.patch ({self.network.patch})"
                )
        self.layout()
        return self

    @property
    def trains(self) -> bool:
        """Whether the workflow makes the checkpoint itself."""
        return self.network.checkpoint == FROM_TRAINING

    @property
    def windows(self) -> Windows:
        """The z-windows."""
        return Windows(sections=self.network.sections, planes=self.plane.sections)

    def layout(self) -> Layout:
        """Bounds, region, slabs, steps and phases. Raises UserError when they do not fit."""
        patch = self.network.patch
        volume = self.plane.rect.rounded_out(patch)
        wanted = volume if self.region == "all" else Rect(*self.region).rounded_out(patch)
        if min(wanted.height, wanted.width) < 1 or wanted.cut(volume) != wanted:
            raise UserError(
                f"region: {self.region} does not lie inside the plane {list(self.plane.rect)}"
            )
        if not len(self.windows):
            raise UserError(
                f"plane.sections: {self.plane.sections} sections are too few for windows of "
                f"{self.network.sections}, which lose {self.windows.first} at each end"
            )
        return Layout(
            bounds=wanted if self.bounds == "region" else volume,
            region=wanted,
            patch=patch,
            slab=self.generate.slab,
            windows=self.windows,
            steps=self.generate.steps,
            phases=self.generate.phases,
        )

    def identity(self) -> dict[str, Any]:
        """What the voxels depend on, flat: `generate.seed` -> 0 and so on."""
        free = {"title", "results", "generate.threads", "generate.gpus"}
        free |= {"train.threads", "train.gpus", "train.save_minutes"}
        return {k: v for k, v in flatten(self.model_dump(mode="json")).items() if k not in free}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings -> one level, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def parse_config(values: Mapping[str, Any]) -> Config:
    """Validate a configuration.

    Raises:
        UserError: with one line per problem, each naming the key, what it got and what may be.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        lines = [_problem(e) for e in error.errors(include_url=False)]
        raise UserError("\n".join(lines)) from None


def _problem(error: Any) -> str:
    """One line for one validation error."""
    kinds = {"molecules", "cells", "tiles"}
    key = ".".join(str(part) for part in error["loc"] if part not in kinds)
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return message if not key else f"{key}: {message}"
    if error["type"] == "missing":
        return f"{key}: missing; {message.lower()}"
    if error["type"] == "extra_forbidden":
        return f"{key}: no such key"
    return f"{key}: got {error['input']!r}; {message[0].lower()}{message[1:]}"


def differences(made: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """One line per key in which two identities differ."""
    keys = [*asked, *(key for key in made if key not in asked)]
    return [
        f"{key} was {made.get(key)!r}, is now {asked.get(key)!r}"
        for key in keys
        if made.get(key) != asked.get(key)
    ]


def refuse_other_results(config: Config, provenance: Path) -> None:
    """Stop when the results folder was made with other settings.

    Raises:
        UserError: naming every key that differs.
    """
    if not provenance.is_file():
        return
    try:
        made = json.loads(provenance.read_text(encoding="utf-8"))["identity"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{provenance}: not readable; remove it or the results folder") from None
    found = differences(made, json.loads(json.dumps(config.identity())))
    if found:
        raise UserError(
            f"{config.results}: made with other settings ({'; '.join(found)}); "
            "name another `results` folder or remove this one"
        )
