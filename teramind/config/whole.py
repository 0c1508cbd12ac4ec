"""The whole configuration: its sections together, and what must agree between them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from teramind.config.attention import Attention
from teramind.config.conflicts import conflicts
from teramind.config.expression import (
    CellExpression,
    MoleculeExpression,
    TableExpression,
    TileExpression,
)
from teramind.config.files import ResultFiles
from teramind.config.generation import Generate, NetworkSection, Plane
from teramind.config.learning import Evaluation, Phantom, Reference, Train
from teramind.config.published import (
    BRAINS,
    NETWORKS,
    PREFIX,
    Download,
    archive_of,
)
from teramind.config.values import Bounds, PathText, Region, StrictModel, Text, flatten
from teramind.geometry import Layout, Rect, Windows
from teramind.split import Split, random_split, whole_plane

FROM_TRAINING = "train"
"""Value of `network.checkpoint` that asks the workflow to train the network first."""


class Config(StrictModel):
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
    bounds: Bounds = Field(
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
        if found := list(conflicts(self)):
            raise ValueError("\n".join(found))
        return self

    @property
    def volume(self) -> Rect:
        """The plane, rounded out to patches."""
        return self.plane.rect.rounded_out(self.network.patch)

    @property
    def box(self) -> Rect | None:
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
    def wanted(self) -> Rect:
        """What is drawn: the region or all, rounded out to patches."""
        return (self.box or self.volume).rounded_out(self.network.patch)

    def centre_um(self, section: int, y: float, x: float) -> tuple[float, float, float]:
        """Where a pixel of a section has its centre, (z, y, x) in the coordinates of the table."""
        pixel, found = self.plane.pixel_size_um, self.expression
        top, left = 0.0, 0.0
        if isinstance(found, TableExpression):
            unit = pixel if found.units == "pixel" else 1.0
            top, left = (unit * edge for edge in found.origin)
        z = section * self.plane.section_spacing_um
        return z, top + (y + 0.5) * pixel, left + (x + 0.5) * pixel

    @property
    def expression_read(self) -> Rect | None:
        """Pixels whose expression the region depends on, and some more; None for all there is.

        Every step reads half a patch around what it computes, and needs one patch more of the
        step before; tissue is looked for up to `margin` patches outside. Training and the
        regression learn from all that real images show, whatever the region.
        """
        if self.box is None or self.reference:
            return None
        reach = self.generate.steps + self.generate.margin + 1
        return self.wanted.grown(reach * self.network.patch)

    @property
    def raster_extent(self) -> Rect | None:
        """Pixels whose molecules a table's raster keeps; None for tiles, which bring frames.

        All that drawing the volume reads: half a patch around it, and `margin` patches for tissue.
        """
        if isinstance(self.expression, TileExpression):
            return None
        return self.volume.grown(max(self.generate.margin, 1) * self.network.patch)

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
    def files(self) -> ResultFiles:
        """Where what is made lies."""
        return ResultFiles(Path(self.results))

    @property
    def archives(self) -> list[str]:
        """Archives that are to be downloaded."""
        return [name for name in (self.source_archive, self.checkpoint_archive) if name]

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
            bounds=self.wanted if self.bounds == "region" else self.volume,
            region=self.wanted,
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
        return random_split(self.plane.rect, named=box, **self.reference.split.model_dump())

    def identity(self) -> dict[str, Any]:
        """What the voxels depend on, flat: `generate.seed` -> 0 and so on."""
        free = {"title", "results"}
        free |= {f"generate.{key}" for key in ("threads", "gpus", "memory_mb", "minutes")}
        free |= {f"train.{key}" for key in ("threads", "gpus", "save_minutes", "keep")}
        free |= {"train.minutes", "train.rounds"}
        outside = {"attention", "download", "evaluation"}
        settings = self.model_dump(mode="json", exclude=outside)
        if not self.trains:  # then the images are only compared with
            del settings["reference"], settings["train"]
        settings["region"] = list(self.box) if self.box else "all"
        return {key: value for key, value in flatten(settings).items() if key not in free}
