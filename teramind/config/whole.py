"""The whole configuration: its sections together, and what must agree between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from teramind.config.attention import Attention
from teramind.config.expression import CellExpression, MoleculeExpression, TileExpression
from teramind.config.generation import Generate, NetworkSection, Plane
from teramind.config.learning import Evaluation, Phantom, Reference, Train
from teramind.config.published import (
    BRAINS,
    NETWORKS,
    PREFIX,
    Download,
    archive_of,
    published_conflicts,
)
from teramind.config.values import PathText, Region, Section, Text, flatten
from teramind.errors import UserError
from teramind.geometry import EMPTY, Layout, Rect, Windows
from teramind.schedule import timesteps
from teramind.split import Split, draw_split, whole_plane

FROM_TRAINING = "train"
"""Value of `network.checkpoint` that asks the workflow to train the network first."""


_MOST_JOBS = 200_000
"""Snakemake takes about 25 MiB and 2 s to plan 1,000 jobs."""


class Config(Section):
    """The whole configuration."""

    title: Text = Field("Virtual brain", description="heading of the report")
    results: PathText = Field("results", description="folder for everything made")
    expression: Annotated[
        MoleculeExpression | CellExpression | TileExpression, Field(discriminator="kind")
    ]
    plane: Plane
    region: Region = Field(
        "all",
        description="part to generate: [y, x, height, width] in pixels, the same in um from pixel"
        " (0, 0) as {um: [...]}, {tiles: [y, x, rows, columns]} with y, x in pixels, or all",
    )
    bounds: Literal["volume", "region"] = Field(
        "volume", description="where the state ends: at the volume's edge or the region's"
    )
    network: NetworkSection
    generate: Generate
    reference: Reference | None = None
    evaluation: Evaluation | None = None
    phantom: Phantom | None = None
    train: Train | None = None
    attention: Attention | None = None
    download: Download = Download()

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        if conflicts := list(self._conflicts()):
            raise ValueError("\n".join(conflicts))
        return self

    def _conflicts(self) -> Iterator[str]:
        """What is wrong between keys that are each right."""
        if self.trains and (self.train is None or not (self.reference or self.train.tiles)):
            yield "network.checkpoint: 'train' needs the sections train and reference"
        if self.trains and self.expression.panel is None:
            yield "expression.panel: missing; training needs a gene list"
        yield from published_conflicts(self.expression, self.network)
        if len(set(self.network.stains)) < len(self.network.stains):
            yield f"network.stains: got {list(self.network.stains)}; must differ"
        if self.reference and (strange := set(self.reference.white) - set(self.network.stains)):
            yield (
                f"reference.white: got {sorted(strange)}; must be among network.stains "
                f"{list(self.network.stains)}"
            )
        yield from self._boxes_outside()
        yield from self._training_conflicts()
        if not len(self.windows):
            yield (
                f"plane.sections: got {self.plane.sections}; too few for windows of "
                f"{self.network.sections} sections, which lose {self.windows.first} at each end"
            )
        run = self.generate
        for check in (lambda: timesteps(run.steps, run.solver), self._plan):
            try:
                check()
            except UserError as error:
                yield f"generate.{error}"

    def _plan(self) -> None:
        """Raise UserError where slabs and phases do not fit, or are more than can be planned."""
        jobs = self.layout().jobs
        if jobs > _MOST_JOBS:
            raise UserError(
                f"slab: {self.generate.slab} pixels make {jobs:,} jobs of {self.generate.phases} "
                f"phases; Snakemake plans {_MOST_JOBS:,} at most, so it must be larger"
            )

    def _training_conflicts(self) -> Iterator[str]:
        """What does not fit in the sections reference and train."""
        if self.reference and self.reference.split:
            try:
                self.split()
            except UserError as error:
                yield str(error)
        if not (self.trains and self.train):
            return
        batch, gpus, accumulate = self.train.batch, self.train.gpus, self.train.accumulate
        if batch % (max(gpus, 1) * accumulate):
            yield (
                f"train.batch: got {batch}; must be a multiple of train.gpus x train.accumulate "
                f"({max(gpus, 1)} x {accumulate})"
            )
        if self.train.rounds > 1 and self.train.minutes is None:
            yield "train.minutes: missing; train.rounds above 1 needs it"

    def _boxes_outside(self) -> Iterator[str]:
        """Rectangles that leave the plane, or cannot be bounds."""
        patch, plane = self.network.patch, list(self.plane.rect)
        if box := self._box:
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
            elif (drawn := self._box) and box.cut(drawn) == EMPTY:
                yield (
                    f"reference.holdout: got {list(box)}; shares nothing with region {list(drawn)}"
                )

    @property
    def _volume(self) -> Rect:
        return self.plane.rect.rounded_out(self.network.patch)

    @property
    def _box(self) -> Rect | None:
        """The region in pixels as given, not yet rounded to patches; None for all."""
        if self.region == "all":
            return None
        if isinstance(self.region, tuple):
            return Rect(*self.region)
        y, x, height, width = self.region["um"]
        edges = (round(edge / self.plane.pixel_size_um) for edge in (y, x, y + height, x + width))
        top, left, bottom, right = edges
        return Rect(top, left, bottom - top, right - left)

    @property
    def _wanted(self) -> Rect:
        return (self._box or self._volume).rounded_out(self.network.patch)

    @property
    def expression_read(self) -> Rect | None:
        """Pixels whose expression the region depends on, and some more; None for all there is.

        Every step reads half a patch around what it computes, and needs one patch more of the
        step before; tissue is looked for up to `margin` patches outside.
        """
        if self._box is None:
            return None
        reach = self.generate.steps + self.generate.margin + 1
        return self._wanted.grown(reach * self.network.patch)

    @property
    def trains(self) -> bool:
        """Whether the workflow makes the checkpoint itself."""
        return self.network.checkpoint == FROM_TRAINING

    @property
    def source_archive(self) -> str | None:
        """Archive of a published brain that `expression.source` names."""
        return archive_of(self.expression.source, BRAINS)

    @property
    def mouse(self) -> str | None:
        """The mouse whose published expression is asked for by name."""
        return self.expression.source.removeprefix(PREFIX) if self.source_archive else None

    @property
    def checkpoint_archive(self) -> str | None:
        """Archive of a published network that `network.checkpoint` names."""
        return archive_of(self.network.checkpoint, NETWORKS)

    @property
    def source_path(self) -> Path:
        """Where the expression lies, once it is downloaded."""
        archive = self.source_archive
        return Path(self.download.folder, archive) if archive else Path(self.expression.source)

    @property
    def checkpoint_path(self) -> Path:
        """Where the checkpoint or its archive lies, once it is downloaded."""
        archive = self.checkpoint_archive
        return Path(self.download.folder, archive) if archive else Path(self.network.checkpoint)

    @property
    def converts(self) -> bool:
        """Whether the checkpoint is in the published form, and made a safetensors first."""
        return not self.trains and Path(self.network.checkpoint).suffix != ".safetensors"

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
            stack=self.generate.windows,
        )

    def split(self) -> Split:
        """Training, validation and test part. Raises UserError when one is empty."""
        assert self.reference is not None
        held = self.reference.holdout
        box = Rect(*held) if held else None
        if self.reference.split is None:
            return whole_plane(self.plane.rect, box)
        return draw_split(self.plane.rect, named=box, **self.reference.split.model_dump())

    def identity(self) -> dict[str, Any]:
        """What the voxels depend on, flat: `generate.seed` -> 0 and so on."""
        free = {"title", "results"}
        free |= {f"generate.{key}" for key in ("threads", "gpus", "memory_mb")}
        free |= {f"train.{key}" for key in ("threads", "gpus", "save_minutes", "keep")}
        free |= {"train.minutes", "train.rounds"}
        outside = {"attention", "download", "evaluation"}
        settings = self.model_dump(mode="json", exclude=outside)
        if not self.trains:  # then the images are only compared with
            del settings["reference"], settings["train"]
        settings["region"] = list(self._box) if self._box else "all"
        return {key: value for key, value in flatten(settings).items() if key not in free}
