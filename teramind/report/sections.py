"""The sections as pictures: which are shown, at what scale, and beside what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from teramind.evaluate.baseline import Regression
from teramind.expression.raster import Raster
from teramind.geometry import Rect
from teramind.report.pictures import (
    Grey,
    Picture,
    colour_bar,
    composite_picture,
    density_picture,
    display_limit,
    grey_picture,
)
from teramind.report.section_pixels import SectionPixels, SectionReader
from teramind.units import scale_bar

MOST_SECTIONS = 12
"""Sections shown at most."""


@dataclass(frozen=True)
class Box:
    """A rectangle drawn on a picture, in per cent of its size."""

    kind: str
    top: float
    left: float
    height: float
    width: float


@dataclass(frozen=True)
class Figure:
    """A picture with its caption, scale bar and outlined rectangles."""

    picture: Picture
    caption: str
    bar_percent: float
    bar_label: str
    boxes: tuple[Box, ...] = ()
    limit: int | None = None
    """Molecules per bin at the end of the colour bar, for a picture that needs one."""


@dataclass(frozen=True)
class SectionView:
    """One section: rows of figures, each row with its CSS class."""

    number: int
    rows: tuple[tuple[str, tuple[Figure, ...]], ...]


@dataclass(frozen=True)
class Gallery:
    """The sections shown, of `total`, and the scales they share."""

    sections: tuple[SectionView, ...]
    total: int
    colour_bar: Picture
    grey_limits: dict[str, int]
    factor: int
    close_up: bool
    real: bool


def section_gallery(
    volume: str | Path,
    raster: str | Path,
    *,
    reference: Path | None,
    holdout: Rect | None,
    weights: Regression | None = None,
) -> Gallery:
    """Draw up to `MOST_SECTIONS` sections of a volume beside expression and real images.

    With a regression, the close-ups are expression, regression, generated and real in a row.

    `holdout` (pixels of the plane) is outlined where there are real images. Memory: the pictures,
    whatever the volume's size.
    """
    reader = SectionReader(
        volume, Raster.open(raster), reference=reference, holdout=holdout, weights=weights
    )
    pixels = [reader.read(z) for z in evenly_chosen(reader.layout.shape[1], MOST_SECTIONS)]
    artist = _Artist(reader, pixels)
    return Gallery(
        sections=tuple(SectionView(p.number, tuple(artist.rows(p))) for p in pixels),
        total=reader.layout.shape[1],
        colour_bar=colour_bar("Colours from no molecules (black) to the maximum (pale yellow)"),
        grey_limits=dict(zip(reader.layout.stains, artist.limits, strict=True)),
        factor=reader.grid.factor,
        close_up=reader.close_up is not None,
        real=reader.real is not None,
    )


def evenly_chosen(total: int, most: int) -> list[int]:
    """Return up to `most` of the numbers 0..total - 1, the first and the last among them."""
    return sorted({round(float(k)) for k in np.linspace(0, total - 1, min(total, most))})


class _Artist:
    """Draws figures of sections that share their grey and colour scales."""

    def __init__(self, reader: SectionReader, pixels: Sequence[SectionPixels]) -> None:
        self.stains = reader.layout.stains
        self.rect, self.holdout = reader.rect, reader.holdout
        self.pixel_size_um = reader.layout.pixel_size_um
        stains = range(len(self.stains))
        self.limits = [
            display_limit([q for p in pixels for q in (*p.made[c : c + 1], *p.real[c : c + 1])])
            for c in stains
        ]
        self.close_limits = [
            display_limit([q[c] for p in pixels for q in (p.close_made, p.close_real) if q])
            for c in (stains if any(p.close for p in pixels) else ())
        ]
        self.most = display_limit([p.density for p in pixels])

    def rows(self, p: SectionPixels) -> list[tuple[str, tuple[Figure, ...]]]:
        """Return the rows of figures of one section, each with its CSS class."""
        top = ("wide", (self._overview(p), self._expression(p)))
        if not p.real:
            greys = tuple(self._grey(p, c, p.made, "generated") for c in range(len(self.stains)))
            return [top, ("small", (*greys, *self._close_ups(p)))]
        pairs = [
            (self._grey(p, c, p.real, "real"), self._grey(p, c, p.made, "generated"))
            for c in range(len(self.stains))
        ]
        close = self._close_ups(p)
        return [
            top,
            *(("pair", pair) for pair in pairs),
            *([("four" if p.close_fitted else "pair", close)] if close else []),
        ]

    def _figure(
        self, picture: Picture, caption: str, rect: Rect, *boxes: Box, limit: int | None = None
    ) -> Figure:
        percent, label = scale_bar(rect.width * self.pixel_size_um)
        return Figure(picture, caption, percent, label, boxes, limit)

    def _overview(self, p: SectionPixels) -> Figure:
        names = " and ".join(self.stains)
        alt = f"Generated section {p.number}, {names} in colour"
        picture = composite_picture(p.made, self.limits, self.stains, alt)
        boxes = [self._box("close", p.close)] if p.close and p.close != self.rect else []
        return self._figure(picture, f"Generated: {names}", self.rect, *boxes)

    def _expression(self, p: SectionPixels) -> Figure:
        alt = f"Molecules of all genes per bin in section {p.number}, the expression read"
        picture = density_picture(p.density, self.most, alt)
        caption = "Expression it came from: molecules of all genes per bin"
        return self._figure(picture, caption, self.rect, limit=self.most)

    def _grey(self, p: SectionPixels, c: int, images: Sequence[Grey], kind: str) -> Figure:
        alt = f"{kind.capitalize()} {self.stains[c]} of section {p.number} in grey"
        picture = grey_picture(images[c], self.limits[c], alt)
        boxes = [self._box("holdout", self.holdout)] if p.real and self.holdout else []
        return self._figure(picture, f"{self.stains[c]}, {kind}", self.rect, *boxes)

    def _close_ups(self, p: SectionPixels) -> tuple[Figure, ...]:
        """Return the close-up, after the real one where there is one."""
        if p.close is None:
            return ()
        kinds = [
            ("regression on expression", p.close_fitted),
            ("generated", p.close_made),
            ("real", p.close_real),
        ]
        expression: tuple[Figure, ...] = ()
        if p.close_fitted and p.close_density is not None:
            alt = f"Close-up of section {p.number}: molecules of all genes per bin"
            picture = density_picture(p.close_density, self.most, alt)
            caption = "Close-up: expression"
            expression = (self._figure(picture, caption, p.close, limit=self.most),)
        return expression + tuple(
            self._figure(
                composite_picture(
                    images,
                    self.close_limits,
                    self.stains,
                    f"Close-up of section {p.number} at full resolution, {kind}",
                ),
                f"Close-up at full resolution, {kind}",
                p.close,
            )
            for kind, images in kinds
            if images
        )

    def _box(self, kind: str, rect: Rect) -> Box:
        """Place a rectangle of the plane on a picture of the whole section."""
        shared = rect.cut(self.rect)
        return Box(
            kind,
            top=100 * (shared.y - self.rect.y) / self.rect.height,
            left=100 * (shared.x - self.rect.x) / self.rect.width,
            height=100 * shared.height / self.rect.height,
            width=100 * shared.width / self.rect.width,
        )
