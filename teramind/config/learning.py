"""Configuration of real or made-up images and of the training on them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from teramind.config.values import Count, Edge, PathText, PlaneBox, Section, Text, Whole


class Reference(Section):
    """Real images of the same plane, to train on and to compare with."""

    images: PathText = Field(description="OME-TIFF, uint8")
    white: dict[str, Annotated[Whole, Field(ge=1, le=255)]] = Field(
        {}, description="grey level of a dim stain that is to become 255"
    )
    holdout: PlaneBox | None = Field(
        None, description="y, x, height, width in pixels: what training never sees"
    )


class Evaluation(Section):
    """What the comparison adds; without `reference`, that the volume is judged at all."""

    frechet: str | None = Field(
        None,
        min_length=1,
        description="Frechet distance of features: efficientnet-lite0, or a file with the weights "
        "of FID's Inception",
    )
    cellpose: str | None = Field(
        None, min_length=1, description="file with Cellpose weights, to find nuclei by it"
    )


class Phantom(Section):
    """Made-up tissue in the place of real images and molecules."""

    height: Edge
    width: Edge
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
    licence: Text | None = Field(None, description="licence of the weights")
    threads: Count = Field(2)
    gpus: Whole = Field(0, ge=0, le=1)
