"""All measures of one section of one stain on one area, read tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from teramind.evaluate.blocks import BLOCK, PART_UM, Tally, doubled_block, ratio
from teramind.evaluate.borders import border_ratio, border_sums
from teramind.evaluate.intensity import (
    BANDS_UM,
    LEVELS,
    deviation,
    histogram,
    log_power_ratio,
    mean,
    spectrum_sums,
    wasserstein,
)
from teramind.evaluate.nuclei import NEAR_UM, Finder, Nuclei, census, inside, otsu
from teramind.evaluate.structure import REACH, correlation, pair_sums, smooth
from teramind.geometry import Rect

SCALES_UM = (2.0, 5.0, 10.0, 20.0)
"""Standard deviations of the smoothing before correlation."""

APART = 4.0
"""Edge of a part in standard deviations of the smoothing, for parts to count as independent."""

TILE = 16 * BLOCK
"""Edge of what is read at once, in pixels; around it the widest smoothing's reach."""

NUCLEAR_STAIN = "DAPI"

Image = Callable[[Rect], NDArray[Any]]
"""Grey levels (y, x) of a rectangle of the plane."""


class Lattice(NamedTuple):
    """The cells whose borders may show: patch and slab edge, first slab's corner, in pixels."""

    patch: int
    slab: int
    corner: tuple[int, int]


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

    real: Image | None
    subjects: dict[str, Image]
    stain: str
    pixel_size_um: float
    whole: Rect
    finder: Finder
    lattice: Lattice

    @property
    def images(self) -> dict[str, Image]:
        """The generated image and, where there is one, the real one."""
        generated = {"generated": self.subjects["generated"]}
        return generated if self.real is None else {**generated, "real": self.real}

    def coarser(self, step: int) -> Scene:
        """The same in pixels that are means of `step` x `step`; what is left over is cut off."""
        wrapped = {name: averaged(image, step) for name, image in self.subjects.items()}
        return replace(
            self,
            real=self.real and averaged(self.real, step),
            subjects=wrapped,
            pixel_size_um=self.pixel_size_um * step,
            whole=coarse_rect(self.whole, step),
        )

    def measures(self, area: Rect) -> Iterator[Measure]:
        """Measure every subject on `area`, a part of `whole`."""
        if self.real is not None:
            yield from _correlations(self, area)
            yield from _likenesses(self, self.real, area)
        yield from _intensities(self, area)
        yield from _borders(self, area)
        if self.stain == NUCLEAR_STAIN:
            yield from _nuclei(self, area)


def _grown(tile: Rect, margin_um: float, pixel_size_um: float, within: Rect) -> Rect:
    return tile.grown(math.ceil(margin_um / pixel_size_um)).cut(within)


def _grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def averaged(image: Image, step: int) -> Image:
    """An image in pixels that are means of `step` x `step`, read a tile at a time."""

    def coarse(rect: Rect) -> NDArray[np.float32]:
        means = np.empty((rect.height, rect.width), np.float32)
        for part in rect.blocks(TILE // step):
            fine = image(Rect(*(step * edge for edge in part)))
            split = fine.reshape(part.height, step, part.width, step)
            means[part.within(rect)] = split.mean((1, 3), dtype=np.float32)
        return means

    return image if step == 1 else coarse


def coarse_rect(rect: Rect, step: int) -> Rect:
    """The pixels of `step` x `step` that lie wholly inside a rectangle."""
    y, x = -(-rect.y // step), -(-rect.x // step)
    return Rect(y, x, max(rect.bottom // step - y, 0), max(rect.right // step - x, 0))


def _correlations(fine: Scene, area: Rect) -> Iterator[Measure]:
    """In pixels of a quarter of the narrowest smoothing, or as they are where they are larger.

    Nothing beyond the area is read: around a holdout lies what the network learned from.
    """
    finer = min(SCALES_UM) / (4 * fine.pixel_size_um)
    step = 1 << int(math.log2(max(finer, 1)))  # a power of two, which divides a tile
    scene, area = fine.coarser(step), coarse_rect(area, step)
    pixel, target = scene.pixel_size_um, scene.real
    assert target is not None
    tallies = {scale: Tally[str](area, max(APART * scale, PART_UM) / pixel) for scale in SCALES_UM}
    for tile in area.blocks(TILE):
        around = _grown(tile, REACH * max(SCALES_UM), pixel, area)
        real = target(around)
        made = {name: image(around) for name, image in scene.subjects.items()}
        for scale in SCALES_UM:
            near, sigma = _grown(tile, REACH * scale, pixel, area), scale / pixel
            cut = near.within(around)
            wanted = smooth(real[cut], sigma)
            for name, pixels in made.items():
                image = smooth(pixels[cut], sigma)
                for block in tile.blocks(BLOCK):
                    part = block.within(near)
                    tallies[scale].add(name, block, pair_sums(image[part], wanted[part]))
    for scale, tally in tallies.items():
        for name, found in tally.estimates(correlation):
            yield Measure(name, "correlation", scale, *found)


def _intensities(scene: Scene, area: Rect) -> Iterator[Measure]:
    tally = Tally[str](area, PART_UM / scene.pixel_size_um)
    for tile in area.blocks(TILE):
        for subject, image in scene.images.items():
            pixels = _grey(image(tile))
            for block in tile.blocks(BLOCK):
                tally.add(subject, block, histogram(pixels[block.within(tile)]))
    for subject in scene.images:
        for name, statistic in (("mean", mean), ("deviation", deviation)):
            yield Measure(subject, f"grey_{name}", np.nan, *tally.estimate(subject, statistic))


def _likenesses(scene: Scene, target: Image, area: Rect) -> Iterator[Measure]:
    least = PART_UM / scene.pixel_size_um
    tally, edge = Tally[str](area, least), min(doubled_block(least), TILE)
    for tile in area.blocks(TILE):
        real, made = target(tile), _grey(scene.subjects["generated"](tile))
        for block in tile.blocks(BLOCK):
            pair = made[block.within(tile)], real[block.within(tile)]
            tally.add("histogram", block, np.concatenate([histogram(i) for i in pair]))
        for block in tile.blocks(edge):
            if block.height == block.width == edge:
                pair = made[block.within(tile)], real[block.within(tile)]
                spectra = [spectrum_sums(i, scene.pixel_size_um) for i in pair]
                tally.add("spectrum", block, np.concatenate(spectra))
    yield Measure("generated", "wasserstein", np.nan, *tally.estimate("histogram", wasserstein))
    for band, wavelength in enumerate(BANDS_UM[:-1]):
        if wavelength >= 2 * scene.pixel_size_um:
            found = tally.estimate("spectrum", log_power_ratio(band))
            yield Measure("generated", "log10_power_ratio", wavelength, *found)


def _borders(scene: Scene, area: Rect) -> Iterator[Measure]:
    tally = Tally[tuple[str, str]](area, PART_UM / scene.pixel_size_um)
    patch, slab, origin = scene.lattice
    for tile in area.blocks(TILE):
        read = _with_lead(tile, area)
        for subject, image in scene.images.items():
            pixels = _grey(image(read))
            for kind, edge in (("patch", patch), ("slab", slab)):
                for block in tile.blocks(min(4 * edge, TILE)):
                    rect = _with_lead(block, read)
                    cut = pixels[rect.within(read)]
                    sums = border_sums(cut, rect, block, edge=edge, origin=origin, patch=patch)
                    tally.add((subject, kind), block, sums)
    for (subject, kind), found in tally.estimates(border_ratio):
        yield Measure(subject, f"{kind}_border_ratio", np.nan, *found)


def _with_lead(rect: Rect, area: Rect) -> Rect:
    """With the row and column before it, so that steps into the rectangle belong to it."""
    return Rect(rect.y - 1, rect.x - 1, rect.height + 1, rect.width + 1).cut(area)


def _nuclei(scene: Scene, area: Rect) -> Iterator[Measure]:
    pixel = scene.pixel_size_um
    tally = Tally[tuple[str, str]](area, PART_UM / pixel)
    images = {**scene.images, **scene.subjects}
    found = {name: _nuclei_of(scene, image, area) for name, image in images.items()}
    for subject, nuclei in found.items():
        blocks = census(nuclei, found.get("real"), area=area, edge=2 * BLOCK, pixel_size_um=pixel)
        for block, sums in blocks:
            for name, pair in sums.items():
                tally.add((subject, name), block, pair)
    for subject in images:
        names = ["per_mm2", "diameter_um", "grey", "nearest_um"]
        if scene.real is not None and subject != "real":
            names.append("f1")
        for name in names:
            estimate = tally.estimate((subject, name), ratio)
            yield Measure(subject, f"nuclei_{name}", np.nan, *estimate)


def _nuclei_of(scene: Scene, image: Image, area: Rect) -> Nuclei:
    """Nuclei in and around an area, each found in the tile of its middle and seen whole."""
    pixel, threshold, parts = scene.pixel_size_um, _threshold(image, area), []
    for tile in _grown(area, NEAR_UM, pixel, scene.whole).blocks(TILE):
        around = _grown(tile, NEAR_UM, pixel, scene.whole)
        nuclei = scene.finder(_grey(image(around)), threshold=threshold)
        nuclei = nuclei.moved(np.array([around.y, around.x]) * pixel)
        parts.append(nuclei.chosen(inside(nuclei.middles, tile, pixel)))
    return Nuclei(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _threshold(image: Image, area: Rect) -> float:
    levels = np.zeros(LEVELS)
    for tile in area.blocks(TILE):
        levels += histogram(_grey(image(tile)))
    return otsu(levels)
