"""Generated sections beside real ones and beside what expression alone gives, ready to measure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from teramind.evaluate.baseline import TILE as RASTER_TILE
from teramind.evaluate.baseline import Regression, density
from teramind.evaluate.frechet import Features, features_of, frechet, tiles_of
from teramind.evaluate.intensity import histogram
from teramind.evaluate.measure import TILE, Image, Lattice, Measure, Scene
from teramind.evaluate.nuclei import Finder
from teramind.expression.raster import Raster
from teramind.geometry import Rect
from teramind.volume import VolumeLayout
from teramind.volume.place import VolumePlace, volume_place


class Comparison(NamedTuple):
    """Everything that a section is compared with; rectangles are of the plane."""

    layout: VolumeLayout
    generated: zarr.Array[Any]
    reference: zarr.Array[Any] | None
    raster: Raster
    regression: Regression | None
    shared: Rect
    holdout: Rect | None
    lattice: Lattice

    @property
    def areas(self) -> dict[str, Rect]:
        """What is judged apart: the holdout, if there is one, and all that is shared."""
        held = {} if self.holdout is None else {"holdout": self.holdout.cut(self.shared)}
        return {**held, "whole": self.shared}

    def rows(self, section: int, finder: Finder) -> Iterator[dict[str, Any]]:
        """Every measure of a section, by stain and area; `finder` finds nuclei."""
        for c, stain in enumerate(self.layout.stains):
            scene = self.scene(section, c, finder)
            for area, rect in self.areas.items():
                for measure in scene.measures(rect):
                    yield {"section": section, "stain": stain, "area": area} | measure._asdict()

    def frechet_rows(self, features: Features) -> Iterator[dict[str, Any]]:
        """The Frechet distance over all sections and its floor, by stain and area."""
        for c, stain in enumerate(self.layout.stains):
            for area, rect in self.areas.items():
                for measure in self._frechet(features, c, rect):
                    yield {"section": None, "stain": stain, "area": area} | measure._asdict()

    def histograms(self, section: int) -> dict[str, dict[str, list[int]]]:
        """Pixels of a section at each grey level of the first area, by stain and subject."""
        read = {"generated": self._read_generated}
        if self.reference is not None:
            read["real"] = self._read_real
        tiles = list(next(iter(self.areas.values())).blocks(TILE))
        return {
            stain: {
                subject: _levels(histogram(image(section, c, tile)) for tile in tiles)
                for subject, image in read.items()
            }
            for c, stain in enumerate(self.layout.stains)
        }

    def _frechet(self, features: Features, c: int, area: Rect) -> Iterator[Measure]:
        """The Frechet distance of one stain over all sections, and its floor."""
        if self.reference is None:
            return
        tiles = [(self.sections[k], rect) for k, rect in tiles_of(area, len(self.sections))]
        made, real = (
            features_of(features, (read(section, c, rect) for section, rect in tiles))
            for read in (self._read_generated, self._read_real)
        )
        found = frechet(made, real)
        for subject, value in (("generated", found.generated), ("real", found.floor)):
            yield Measure(subject, "frechet", np.nan, value, np.nan, np.nan, found.tiles)

    @property
    def sections(self) -> range:
        """Sections of the plane that volume and reference both have."""
        first = self.place.first
        last = first + self.generated.shape[1]
        return range(
            first, min(last, self.reference.shape[1]) if self.reference is not None else last
        )

    @property
    def place(self) -> VolumePlace:
        """Where the volume lies."""
        return volume_place(self.layout)

    def scene(self, section: int, c: int, finder: Finder) -> Scene:
        """One section of one stain, whose nuclei `finder` finds."""
        subjects: dict[str, Image] = {"generated": partial(self._read_generated, section, c)}
        if self.reference is not None:
            subjects["density"] = self._density(section)
        if self.regression is not None:
            subjects["regression"] = partial(self.regression.predict, self.raster, section, stain=c)
        if self.reference is not None and self.reference.shape[1] > 1:
            other = section + 1 if section + 1 < self.reference.shape[1] else section - 1
            subjects["neighbour"] = partial(self._read_real, other, c)
        return Scene(
            real=None if self.reference is None else partial(self._read_real, section, c),
            subjects=subjects,
            stain=self.layout.stains[c],
            pixel_size_um=self.layout.pixel_size_um,
            whole=self.shared,
            finder=finder,
            lattice=self.lattice,
        )

    def _read_generated(self, section: int, c: int, rect: Rect) -> NDArray[np.uint8]:
        first, whole = self.place
        return np.asarray(self.generated[c, section - first, *rect.within(whole)])

    def _read_real(self, section: int, c: int, rect: Rect) -> NDArray[np.uint8]:
        assert self.reference is not None
        return np.asarray(self.reference[c, section, *rect.slices])

    def _density(self, section: int) -> Image:
        """Molecule density scaled so that its largest value is 255."""
        tiles = self.shared.blocks(RASTER_TILE)
        largest = max(float(density(self.raster, section, tile).max()) for tile in tiles)

        def image(rect: Rect) -> NDArray[np.float32]:
            return density(self.raster, section, rect) * np.float32(255 / max(largest, 1))

        return image


def _levels(histograms: Iterable[NDArray[Any]]) -> list[int]:
    levels: list[int] = np.sum(list(histograms), 0).astype(int).tolist()
    return levels
