"""The workflow's configuration: one typed model per section, every key with its meaning.

Validation collects all problems and names each key, what it got and what it may be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from teramind.errors import UserError
from teramind.geometry import Layout, Rect, Windows
from teramind.problems import problem
from teramind.schedule import kept_timesteps


def _four_numbers(value: Any) -> Any:
    if not isinstance(value, list | tuple) or [type(v) for v in value] != [int] * 4:
        raise ValueError("must be [y, x, height, width] in whole pixels")
    return value


def _four_numbers_or_all(value: Any) -> Any:
    try:
        return value if value == "all" else _four_numbers(value)
    except ValueError as error:
        raise ValueError(f"{error}, or 'all'") from None


def _text_or_number(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError("must be text or a number")
    return value


Box = tuple[int, int, int, int]
SectionValue = Annotated[str | int | float, BeforeValidator(_text_or_number)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True)]  # neither `yes` nor "3"
Count = Annotated[Whole, Field(ge=1)]
Micrometres = Annotated[float, Field(gt=0, allow_inf_nan=False)]

FROM_TRAINING = "train"
"""Value of `network.checkpoint` that asks the workflow to train the network first."""


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Expression(Section):
    """Where the molecules come from."""

    source: str = Field(min_length=1, description="file or folder with the expression")
    panel: str | None = Field(None, description="gene list; by default the checkpoint's own")
    synonyms: str | None = Field(None, description="TSV: name in the data, name in the panel")
    minimum_overlap: float = Field(0.5, ge=0, le=1, description="panel genes that must be found")
    outside: Literal["error", "skip"] = Field(
        "error", description="molecules outside the plane: refuse above 1 %, or cut them off"
    )
    origin: tuple[Finite, Finite] = Field((0.0, 0.0), description="y, x of pixel (0, 0)")


class MoleculeExpression(Expression):
    """A molecule table, CSV, CSV.gz or Parquet."""

    kind: Literal["molecules"]
    preset: Literal["merscope", "xenium"] | None = Field(None, description="known column names")
    gene: str = Field("gene", description="column of gene names")
    x: str = Field("x", description="column of x")
    y: str = Field("y", description="column of y")
    section: str | None = Field(None, description="column of the section; none: one section")
    units: Literal["um", "pixel"] = Field("um", description="units of x, y and origin")
    section_values: tuple[SectionValue, ...] | None = Field(
        None, description="values of the section column in z order; none: numbers from 0"
    )


class CellExpression(Expression):
    """Cells x genes in AnnData."""

    kind: Literal["cells"]
    spatial_key: str = Field("spatial", description="entry of obsm with the centres, x first")
    section: str | None = Field(None, description="column of obs that tells the section")
    section_values: tuple[SectionValue, ...] | None = Field(
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

    y: Whole = Field(0, ge=0, description="first row of the volume")
    x: Whole = Field(0, ge=0, description="first column of the volume")
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
    seed: Whole = Field(0, ge=0, lt=2**64, description="of the initial noise")
    noise: Literal["philox", "published"] = Field("philox")
    margin: Whole = Field(1, ge=0, le=64, description="patches of background kept around tissue")
    state: Literal["float32", "float16"] = Field("float32", description="states between phases")
    threads: Count = Field(1, description="CPU threads of one slab job")
    gpus: Whole = Field(0, ge=0, le=1, description="GPUs of one slab job")


class Reference(Section):
    """Real images of the same plane, to train on and to compare with."""

    images: str = Field(min_length=1, description="OME-TIFF, uint8")
    white: dict[str, Annotated[Whole, Field(ge=1, le=255)]] = Field(
        {}, description="grey level of a dim stain that is to become 255"
    )
    holdout: Annotated[Box, BeforeValidator(_four_numbers)] | None = Field(
        None, description="y, x, height, width in pixels: what training never sees"
    )


class Phantom(Section):
    """Made-up tissue in the place of real images and molecules."""

    height: Count
    width: Count
    seed: Whole = Field(0, ge=0)


class Train(Section):
    """How to learn a checkpoint; needs `reference`."""

    base: Annotated[Whole, Field(ge=2, multiple_of=2)] = Field(
        8, description="channels at full size"
    )
    embed: Count = Field(64, description="width of the time embedding")
    steps: Count = Field(2000, description="training steps")
    batch: Count = Field(2, description="windows per step")
    window: Annotated[Whole, Field(ge=2)] = Field(4, description="patches along a window's edge")
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights")
    loss: Literal["shifted", "published"] = Field("shifted")
    dropout: float = Field(0.1, ge=0, lt=1, description="inside residual blocks; published: 0.1")
    seed: Whole = Field(0, ge=0)
    save_minutes: float = Field(5.0, gt=0, description="time between resumable states")
    weights: Literal["float32", "float16"] = Field("float32", description="stored precision")
    licence: str | None = Field(None, description="licence of the weights")
    threads: Count = Field(2)
    gpus: Whole = Field(0, ge=0, le=1)


class Config(Section):
    """The whole configuration."""

    title: str = Field("Virtual brain", description="heading of the report")
    results: str = Field("results", min_length=1, description="folder for everything made")
    expression: Annotated[
        MoleculeExpression | CellExpression | TileExpression, Field(discriminator="kind")
    ]
    plane: Plane
    region: Annotated[Literal["all"] | Box, BeforeValidator(_four_numbers_or_all)] = Field(
        "all", description="part to generate: y, x, height, width in pixels, or all"
    )
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
        if conflicts := list(self._conflicts()):
            raise ValueError("\n".join(conflicts))
        return self

    def _conflicts(self) -> Iterator[str]:
        """What is wrong between keys that are each right."""
        if self.trains and (self.train is None or self.reference is None):
            yield "network.checkpoint: 'train' needs the sections train and reference"
        if self.trains and self.expression.panel is None:
            yield "expression.panel: missing; training needs a gene list"
        if len(set(self.network.stains)) < len(self.network.stains):
            yield f"network.stains: got {list(self.network.stains)}; must differ"
        if self.reference and (strange := set(self.reference.white) - set(self.network.stains)):
            yield (
                f"reference.white: got {sorted(strange)}; must be among network.stains "
                f"{list(self.network.stains)}"
            )
        yield from self._boxes_outside()
        if not len(self.windows):
            yield (
                f"plane.sections: got {self.plane.sections}; too few for windows of "
                f"{self.network.sections} sections, which lose {self.windows.first} at each end"
            )
        for check in (lambda: kept_timesteps(self.generate.steps), self.layout):
            try:
                check()
            except UserError as error:
                yield f"generate.{error}"

    def _boxes_outside(self) -> Iterator[str]:
        """Rectangles that leave the plane, or cannot be bounds."""
        patch, plane = self.network.patch, list(self.plane.rect)
        if self.region != "all":
            box = Rect(*self.region)
            if self._wanted.cut(self._volume) != self._wanted or min(box.height, box.width) < 1:
                yield f"region: got {list(box)}; must lie inside the plane {plane}"
            elif self.bounds == "region" and box != self._wanted:
                yield (
                    f"region: got {list(box)}; as bounds its edges must be multiples of "
                    f"network.patch ({patch})"
                )
        if self.reference and self.reference.holdout:
            box = Rect(*self.reference.holdout)
            if box.cut(self.plane.rect) != box:
                yield f"reference.holdout: got {list(box)}; must lie inside the plane {plane}"

    @property
    def _volume(self) -> Rect:
        return self.plane.rect.rounded_out(self.network.patch)

    @property
    def _wanted(self) -> Rect:
        if self.region == "all":
            return self._volume
        return Rect(*self.region).rounded_out(self.network.patch)

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
        return Layout(
            bounds=self._wanted if self.bounds == "region" else self._volume,
            region=self._wanted,
            patch=self.network.patch,
            slab=self.generate.slab,
            windows=self.windows,
            steps=self.generate.steps,
            phases=self.generate.phases,
        )

    def identity(self) -> dict[str, Any]:
        """What the voxels depend on, flat: `generate.seed` -> 0 and so on."""
        free = {"title", "results", "generate.threads", "generate.gpus"}
        free |= {"train.threads", "train.gpus", "train.save_minutes"}
        settings = self.model_dump(mode="json")
        if not self.trains:  # then the images are only compared with
            del settings["reference"], settings["train"]
        return {key: value for key, value in flatten(settings).items() if key not in free}


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
        kinds = ("molecules", "cells", "tiles")
        lines = [problem(e, Config, kinds) for e in error.errors(include_url=False)]
        raise UserError("\n".join(lines)) from None


def missing_files(config: Config) -> list[str]:
    """One line per file or folder that the configuration names and nobody will make.

    The source is needed until the raster is there.
    """
    binned = Path(config.results, "expression", "raster.zarr").exists()
    made = config.phantom is not None
    named = {
        "expression.source": None if made or binned else config.expression.source,
        "expression.panel": config.expression.panel,
        "expression.synonyms": None if binned else config.expression.synonyms,
        "network.checkpoint": None if config.trains else config.network.checkpoint,
        "reference.images": config.reference.images if config.reference and not made else None,
    }
    return [
        f"{key}: no such file: {path}"
        for key, path in named.items()
        if path is not None and not Path(path).exists()
    ]


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
