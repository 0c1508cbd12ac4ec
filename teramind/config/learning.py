"""Configuration of real or made-up images and of the training on them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from teramind.config.values import (
    Count,
    Edge,
    Name,
    Number,
    PathText,
    PlaneBox,
    StoredType,
    StrictModel,
    Text,
    Whole,
)

EFFICIENTNET = "efficientnet-lite0"
"""The network of the Frechet distance whose weights come inside a package."""


class SplitSection(StrictModel):
    """How the plane is cut into training, validation and test part; see `teramind.split`."""

    block: Annotated[Whole, Field(ge=32)] = Field(1024, description="edge of a block in pixels")
    guard: Whole = Field(
        64, ge=0, description="pixels around test and validation blocks that train nothing"
    )
    validation: Number = Field(0.1, ge=0, lt=1, description="share of the blocks")
    test: Number = Field(0.1, ge=0, lt=1, description="share; a holdout stands in its place")
    seed: Whole = Field(0, ge=0, description="of the choice of blocks")


class Reference(StrictModel):
    """Real images of the same plane, to train on and to compare with."""

    images: PathText = Field(description="OME-TIFF or OME-Zarr, uint8 or uint16")
    white: dict[str, Annotated[Whole, Field(ge=1, le=65535)]] = Field(
        {}, description="grey level of a stain that is to become 255; uint16 needs it"
    )
    holdout: PlaneBox | None = Field(
        None, description="y, x, height, width in pixels: the test part, named by hand"
    )
    split: SplitSection | None = Field(
        None, description="parts by region; without it all but the holdout trains"
    )


class Evaluation(StrictModel):
    """What the comparison adds; without `reference`, that the volume is judged at all."""

    frechet: PathText | None = Field(
        None,
        description="Frechet distance of features: efficientnet-lite0, or a file with the weights "
        "of FID's Inception",
    )
    cellpose: PathText | None = Field(
        None, description="file with Cellpose weights, to find nuclei by it"
    )


class Phantom(StrictModel):
    """Made-up tissue in the place of real images and molecules."""

    height: Edge
    width: Edge
    seed: Whole = Field(0, ge=0)


class TrainingTiles(StrictModel):
    """Published training tiles, read in place; see `training.tile_windows`."""

    folder: PathText = Field(description="holds gene_<mouse> and img_<mouse>")
    lists: tuple[PathText, ...] = Field(
        min_length=1, description="CSV files that name tiles in a column pth"
    )
    leave_out: Name | None = Field(
        None, description="mouse whose tiles do not train but validate: the one to be drawn"
    )


class Train(StrictModel):
    """How to learn a checkpoint; needs `reference` or `tiles`."""

    tiles: TrainingTiles | None = Field(
        None, description="published tiles to learn from instead of the plane's own images"
    )

    base: Annotated[Whole, Field(ge=2, multiple_of=2)] = Field(
        8, description="channels at full size"
    )
    embed: Count = Field(64, description="width of the time embedding")
    steps: Count = Field(2000, description="training steps")
    batch: Count = Field(2, description="windows per step")
    window: Annotated[Whole, Field(ge=2)] = Field(4, description="patches along a window's edge")
    accumulate: Count = Field(1, description="pieces of a process's share, computed one by one")
    learning_rate: Number = Field(1e-3, gt=0, allow_inf_nan=False)
    schedule: Literal["cosine", "constant"] = Field("cosine", description="after the warm-up")
    warmup: Whole = Field(100, ge=0, description="steps over which the rate rises")
    clip: Number = Field(1.0, gt=0, allow_inf_nan=False, description="largest norm of the gradient")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of most products; auto is bfloat16 on a GPU and float32 elsewhere"
    )
    ema: Number = Field(0.999, ge=0, lt=1, description="decay of the averaged weights")
    loss: Literal["shifted", "published"] = Field("shifted")
    borders: Number = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="weight of the steps that the error takes across borders of patches, which "
        "show as a grid; the published loss has none",
    )
    dropout: Number = Field(0.1, ge=0, lt=1, description="inside residual blocks; published: 0.1")
    seed: Whole = Field(0, ge=0, lt=2**31)
    start: PathText | None = Field(None, description="checkpoint to go on from; sizes are its own")
    start_panel: PathText | None = Field(None, description="gene list of a start that carries none")
    save_minutes: Number = Field(
        5.0, gt=0, allow_inf_nan=False, description="time between resumable states"
    )
    keep: Count = Field(2, description="resumable states kept")
    minutes: Number | None = Field(
        None, gt=0, allow_inf_nan=False, description="time after which a job saves and ends"
    )
    rounds: Count = Field(1, description="jobs of `minutes` that follow each other at most")
    weights: StoredType = Field("float32", description="stored precision")
    licence: Text | None = Field(None, description="licence of the weights")
    threads: Count = Field(2)
    gpus: Whole = Field(0, ge=0, description="GPUs of the job; a process for each")
