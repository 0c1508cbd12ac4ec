"""Generated sections beside real ones and beside what expression alone gives, ready to measure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from teramind.evaluate.baseline import TILE as RASTER_TILE
from teramind.evaluate.baseline import Regression, density
from teramind.evaluate.blocks import blocks_of
from teramind.evaluate.frechet import Features, features_of, frechet, tiles_of
from teramind.evaluate.intensity import histogram
from teramind.evaluate.measure import TILE, Image, Lattice, Measure, Scene
from teramind.evaluate.nuclei import Finder
from teramind.evaluate.place import Place, volume_place
from teramind.expression import Raster
from teramind.geometry import Rect
from teramind.volume import VolumeLayout


class Comparison(NamedTuple):
    """Everything that a section is compared with; rectangles are of the plane."""

    layout: VolumeLayout
    generated: zarr.Array[Any]
    reference: zarr.Array[Any] | None
    raster: Raster
    regression: Regression | None
    shared: Rect
    lattice: Lattice
    finder: Finder
    features: Features | None

    def rows(self, areas: dict[str, Rect]) -> Iterator[dict[str, Any]]:
        """Every measure of every section that both have, stain and area."""
        for section in self.sections:
            for c, stain in enumerate(self.layout.stains):
                scene = self.scene(section, c)
                for area, rect in areas.items():
                    for measure in scene.measures(rect):
                        yield {"section": section, "stain": stain, "area": area} | measure._asdict()
        for c, stain in enumerate(self.layout.stains):
            for area, rect in areas.items():
                for measure in self._frechet(c, rect):
                    yield {"section": None, "stain": stain, "area": area} | measure._asdict()

    def histograms(self, area: Rect) -> dict[str, dict[str, list[int]]]:
        """Pixels at each grey level of the area, all sections together: by stain and subject."""
        read = {"generated": self._read_generated}
        if self.reference is not None:
            read["real"] = self._read_real
        found = {
            stain: {
                subject: sum(
                    histogram(image(section, c, tile))
                    for section in self.sections
                    for tile in blocks_of(area, TILE)
                )
                for subject, image in read.items()
            }
            for c, stain in enumerate(self.layout.stains)
        }
        return {
            stain: {subject: np.asarray(levels, int).tolist() for subject, levels in one.items()}
            for stain, one in found.items()
        }

    def _frechet(self, c: int, area: Rect) -> Iterator[Measure]:
        """The Frechet distance of one stain over all sections, and its floor."""
        if self.features is None or self.reference is None:
            return
        tiles = [(self.sections[k], rect) for k, rect in tiles_of(area, len(self.sections))]
        made, real = (
            features_of(self.features, (read(section, c, rect) for section, rect in tiles))
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
    def place(self) -> Place:
        """Where the volume lies."""
        return volume_place(self.layout)

    def scene(self, section: int, c: int) -> Scene:
        """One section of one stain."""
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
            finder=self.finder,
            lattice=self.lattice,
        )

    def _read_generated(self, section: int, c: int, rect: Rect) -> NDArray[np.uint8]:
        first, whole = self.place
        return np.asarray(self.generated[c, section - first, *rect.within(whole)])

    def _read_real(self, section: int, c: int, rect: Rect) -> NDArray[np.uint8]:
        assert self.reference is not None
        rows, cols = slice(rect.y, rect.bottom), slice(rect.x, rect.right)
        return np.asarray(self.reference[c, section, rows, cols])

    def _density(self, section: int) -> Image:
        """Molecule density scaled so that its largest value is 255."""
        tiles = blocks_of(self.shared, RASTER_TILE)
        largest = max(float(density(self.raster, section, tile).max()) for tile in tiles)

        def image(rect: Rect) -> NDArray[np.float32]:
            return density(self.raster, section, rect) * np.float32(255 / max(largest, 1))

        return image
