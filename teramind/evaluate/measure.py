"""All measures of one section of one stain on one area, read tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from teramind.evaluate.blocks import BLOCK, Tally, blocks_of, ratio
from teramind.evaluate.borders import border_ratio, border_sums
from teramind.evaluate.intensity import (
    BANDS_UM,
    FIRST,
    LEVELS,
    SECOND,
    deviation_of,
    histogram_sums,
    log_power_ratio,
    mean_of,
    spectrum_sums,
    wasserstein,
)
from teramind.evaluate.nuclei import NEAR_UM, Census, f1, find_nuclei, otsu
from teramind.evaluate.structure import REACH, correlation, pair_sums, smooth
from teramind.geometry import Rect

SCALES_UM = (2.0, 5.0, 10.0, 20.0)
"""Standard deviations of the smoothing before correlation."""

TILE = 16 * BLOCK
"""Edge of what is read at once, in pixels; around it the widest smoothing's reach."""

NUCLEAR_STAIN = "DAPI"

Image = Callable[[Rect], NDArray[Any]]
"""Grey levels (y, x) of a rectangle of the plane."""


class Measure(NamedTuple):
    """One number: `subject` against the real image, with its interval; see `blocks.estimate`."""

    subject: str
    measure: str
    scale_um: float
    value: float
    low: float
    high: float
    parts: int


@dataclass(frozen=True)
class Scene:
    """What is measured: images by subject, the real one, and the geometry they share."""

    real: Image
    subjects: dict[str, Image]
    stain: str
    pixel_size_um: float
    whole: Rect
    borders: dict[str, tuple[int, tuple[int, int]]] = field(default_factory=dict)
    """Lattices whose borders may show in what is generated: edge in pixels, y and x of one."""

    def measures(self, area: Rect) -> Iterator[Measure]:
        """Measure every subject on `area`, a part of `whole`."""
        yield from _correlations(self, area)
        yield from _intensities(self, area)
        yield from _borders(self, area)
        if self.stain == NUCLEAR_STAIN:
            yield from _nuclei(self, area)


def _grown(tile: Rect, margin_um: float, scene: Scene) -> Rect:
    return tile.grown(math.ceil(margin_um / scene.pixel_size_um)).cut(scene.whole)


def _grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _correlations(scene: Scene, area: Rect) -> Iterator[Measure]:
    tally = Tally[tuple[str, float]](area)
    for tile in blocks_of(area, TILE):
        around = _grown(tile, REACH * max(SCALES_UM), scene)
        real = scene.real(around)
        made = {name: image(around) for name, image in scene.subjects.items()}
        for scale in SCALES_UM:
            near, sigma = _grown(tile, REACH * scale, scene), scale / scene.pixel_size_um
            cut = near.within(around)
            target = smooth(real[cut], sigma)
            for name, pixels in made.items():
                image = smooth(pixels[cut], sigma)
                for block in blocks_of(tile):
                    part = block.within(near)
                    tally.add((name, scale), block, pair_sums(image[part], target[part]))
    for (name, scale), found in tally.estimates(correlation):
        yield Measure(name, "correlation", scale, *found)


def _intensities(scene: Scene, area: Rect) -> Iterator[Measure]:
    tally = Tally[str](area)
    for tile in blocks_of(area, TILE):
        real, made = scene.real(tile), _grey(scene.subjects["generated"](tile))
        for block in blocks_of(tile):
            pair = made[block.within(tile)], real[block.within(tile)]
            tally.add("histogram", block, histogram_sums(*pair))
            if block.height == block.width == BLOCK:
                spectra = [spectrum_sums(i, scene.pixel_size_um) for i in pair]
                tally.add("spectrum", block, np.concatenate(spectra))
    for subject, image in (("generated", FIRST), ("real", SECOND)):
        for name, statistic in (("mean", mean_of(image)), ("deviation", deviation_of(image))):
            found = tally.estimate("histogram", statistic)
            yield Measure(subject, f"grey_{name}", np.nan, *found)
    yield Measure("generated", "wasserstein", np.nan, *tally.estimate("histogram", wasserstein))
    for band, wavelength in enumerate(BANDS_UM[:-1]):
        if wavelength >= 2 * scene.pixel_size_um:
            found = tally.estimate("spectrum", log_power_ratio(band))
            yield Measure("generated", "log10_power_ratio", wavelength, *found)


def _borders(scene: Scene, area: Rect) -> Iterator[Measure]:
    images = {"generated": scene.subjects["generated"], "real": scene.real}
    tally = Tally[tuple[str, str]](area)
    for tile in blocks_of(area, TILE):
        read = _with_lead(tile, area)
        for subject, image in images.items():
            pixels = _grey(image(read))
            for kind, (edge, origin) in scene.borders.items():
                for block in blocks_of(tile, min(4 * edge, TILE)):
                    rect = _with_lead(block, read)
                    sums = border_sums(pixels[rect.within(read)], rect, edge=edge, origin=origin)
                    tally.add((subject, kind), block, sums)
    for (subject, kind), found in tally.estimates(border_ratio):
        yield Measure(subject, f"{kind}_border_ratio", np.nan, *found)


def _with_lead(rect: Rect, area: Rect) -> Rect:
    """With the row and column before it, so that steps into the rectangle belong to it."""
    return Rect(rect.y - 1, rect.x - 1, rect.height + 1, rect.width + 1).cut(area)


def _nuclei(scene: Scene, area: Rect) -> Iterator[Measure]:
    images = {"real": scene.real, **scene.subjects}
    thresholds = {name: _threshold(image, area) for name, image in images.items()}
    tally = Tally[tuple[str, str]](area)
    pixel = scene.pixel_size_um
    for tile in blocks_of(area, TILE):
        around = _grown(tile, NEAR_UM, scene)
        found = {
            name: find_nuclei(_grey(image(around)), pixel_size_um=pixel, threshold=thresholds[name])
            for name, image in images.items()
        }
        for subject, nuclei in found.items():
            census = Census(nuclei, found["real"])
            for block in blocks_of(tile, 2 * BLOCK):
                low = np.array([block.y - around.y, block.x - around.x]) * pixel
                size = np.array([block.height, block.width]) * pixel
                for name, sums in census.sums(low, low + size).items():
                    tally.add((subject, name), block, sums)
    for subject in images:
        for name in ("per_mm2", "diameter_um", "grey", "nearest_um"):
            yield Measure(
                subject, f"nuclei_{name}", np.nan, *tally.estimate((subject, name), ratio)
            )
        if subject != "real":
            yield Measure(subject, "nuclei_f1", np.nan, *tally.estimate((subject, "f1"), f1))


def _threshold(image: Image, area: Rect) -> float:
    histogram = np.zeros(LEVELS)
    for tile in blocks_of(area, TILE):
        histogram += np.bincount(_grey(image(tile)).ravel(), minlength=LEVELS)
    return otsu(histogram)
