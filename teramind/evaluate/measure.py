"""All measures of one section of one stain on one area, read tile by tile."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from teramind.evaluate.blocks import BLOCK, Estimate, Statistic, blocks_of, estimate, ratio
from teramind.evaluate.borders import border_ratio, border_sums
from teramind.evaluate.intensity import (
    BANDS_UM,
    LEVELS,
    deviation_of,
    histogram_sums,
    log_power_ratio,
    mean_of,
    spectrum_sums,
    wasserstein,
)
from teramind.evaluate.nuclei import (
    Nuclei,
    f1,
    find_nuclei,
    matched,
    nearest_neighbours_um,
    otsu,
)
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
    blocks: int


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


class _Sums:
    """Sums of blocks by what they are of, and the measures they give."""

    def __init__(self) -> None:
        self._of: defaultdict[Any, list[NDArray[np.float64]]] = defaultdict(list)

    def add(self, key: Any, sums: NDArray[np.float64]) -> None:
        self._of[key].append(sums)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def estimate(self, key: Any, statistic: Statistic) -> Estimate:
        return estimate(np.stack(self._of[key]), statistic)


def _grown(tile: Rect, margin_um: float, scene: Scene) -> Rect:
    return tile.grown(math.ceil(margin_um / scene.pixel_size_um)).cut(scene.whole)


def _grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _correlations(scene: Scene, area: Rect) -> Iterator[Measure]:
    sums = _Sums()
    for tile in blocks_of(area, TILE):
        around = _grown(tile, REACH * max(SCALES_UM), scene)
        real = scene.real(around)
        for name, image in scene.subjects.items():
            made = image(around)
            for scale in SCALES_UM:
                near = _grown(tile, REACH * scale, scene)
                cut = near.within(around)
                sigma = scale / scene.pixel_size_um
                pair = smooth(made[cut], sigma), smooth(real[cut], sigma)
                for block in blocks_of(tile):
                    part = block.within(near)
                    sums.add((name, scale), pair_sums(pair[0][part], pair[1][part]))
    for name, scale in sums:
        yield Measure(name, "correlation", scale, *sums.estimate((name, scale), correlation))


def _intensities(scene: Scene, area: Rect) -> Iterator[Measure]:
    histograms, spectra = _Sums(), _Sums()
    for tile in blocks_of(area, TILE):
        real, made = scene.real(tile), _grey(scene.subjects["generated"](tile))
        for block in blocks_of(tile):
            cut = block.within(tile)
            histograms.add("", histogram_sums(made[cut], real[cut]))
            if block.height == block.width == BLOCK:
                pair = [spectrum_sums(i[cut], scene.pixel_size_um) for i in (made, real)]
                spectra.add("", np.concatenate(pair))
    for subject, first in (("generated", True), ("real", False)):
        for name, statistic in (("mean", mean_of(first)), ("deviation", deviation_of(first))):
            yield Measure(subject, f"grey_{name}", np.nan, *histograms.estimate("", statistic))
    yield Measure("generated", "wasserstein", np.nan, *histograms.estimate("", wasserstein))
    for band, wavelength in enumerate(BANDS_UM[:-1]):
        if len(spectra) and wavelength >= 2 * scene.pixel_size_um:
            found = spectra.estimate("", log_power_ratio(band))
            yield Measure("generated", "log10_power_ratio", wavelength, *found)


def _borders(scene: Scene, area: Rect) -> Iterator[Measure]:
    images = {"generated": scene.subjects["generated"], "real": scene.real}
    sums = _Sums()
    for tile in blocks_of(area, TILE):
        read = _with_lead(tile, area)
        for subject, image in images.items():
            pixels = _grey(image(read))
            for kind, (edge, origin) in scene.borders.items():
                for block in blocks_of(tile, min(4 * edge, TILE)):
                    rect = _with_lead(block, read)
                    part = pixels[rect.within(read)]
                    sums.add((subject, kind), border_sums(part, rect, edge=edge, origin=origin))
    for subject, kind in sums:
        found_ratio = sums.estimate((subject, kind), border_ratio)
        yield Measure(subject, f"{kind}_border_ratio", np.nan, *found_ratio)


def _with_lead(rect: Rect, area: Rect) -> Rect:
    """With the row and column before it, so that steps into the rectangle belong to it."""
    return Rect(rect.y - 1, rect.x - 1, rect.height + 1, rect.width + 1).cut(area)


def _nuclei(scene: Scene, area: Rect) -> Iterator[Measure]:
    images = {"real": scene.real, **scene.subjects}
    thresholds = {name: _threshold(image, area) for name, image in images.items()}
    sums = _Sums()
    for tile in blocks_of(area, TILE):
        around = _grown(tile, 30, scene)
        found = {
            name: find_nuclei(
                _grey(image(around)), pixel_size_um=scene.pixel_size_um, threshold=thresholds[name]
            )
            for name, image in images.items()
        }
        for name, nuclei in found.items():
            partners = matched(nuclei.middles, found["real"].middles)
            for block in blocks_of(tile, 2 * BLOCK):
                _add_nuclei(sums, name, nuclei, partners, found["real"], block, around, scene)
    yield from _nuclei_measures(sums, list(images))


def _threshold(image: Image, area: Rect) -> float:
    histogram = np.zeros(LEVELS)
    for tile in blocks_of(area, TILE):
        histogram += np.bincount(_grey(image(tile)).ravel(), minlength=LEVELS)
    return otsu(histogram)


def _add_nuclei(
    sums: _Sums,
    name: str,
    nuclei: Nuclei,
    partners: NDArray[np.intp],
    real: Nuclei,
    block: Rect,
    around: Rect,
    scene: Scene,
) -> None:
    """Add the sums of the nuclei of one subject whose middles lie in a block."""
    pixel = scene.pixel_size_um
    low = ((block.y - around.y) * pixel, (block.x - around.x) * pixel)
    high = (low[0] + block.height * pixel, low[1] + block.width * pixel)
    here = ((nuclei.middles >= low) & (nuclei.middles < high)).all(1)
    number, area_mm2 = here.sum(), block.height * block.width * pixel**2 / 1e6
    sums.add((name, "per_mm2"), np.array([number, area_mm2]))
    apart = nearest_neighbours_um(nuclei.middles)[here]
    apart = apart[np.isfinite(apart)]
    sums.add((name, "diameter_um"), np.array([nuclei.diameters[here].sum(), number]))
    sums.add((name, "grey"), np.array([nuclei.greys[here].sum(), number]))
    sums.add((name, "nearest_um"), np.array([apart.sum(), len(apart)]))
    pairs = (partners[here] >= 0).sum()
    sums.add((name, "f1"), np.array([pairs, number, len(real.inside(low, high).middles)]))


def _nuclei_measures(sums: _Sums, subjects: list[str]) -> Iterator[Measure]:
    for subject in subjects:
        for name in ("per_mm2", "diameter_um", "grey", "nearest_um"):
            found = sums.estimate((subject, name), ratio)
            yield Measure(subject, f"nuclei_{name}", np.nan, *found)
        if subject != "real":
            yield Measure(subject, "nuclei_f1", np.nan, *sums.estimate((subject, "f1"), f1))
