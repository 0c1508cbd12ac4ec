"""A generated volume against real images of the same plane, section by section, as one table."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from teramind.errors import UserError
from teramind.evaluate.baseline import TILE as RASTER_TILE
from teramind.evaluate.baseline import Regression, density, fit_regression
from teramind.evaluate.blocks import blocks_of
from teramind.evaluate.measure import Image, Scene
from teramind.evaluate.place import Place, volume_place
from teramind.expression import Raster
from teramind.files import atomic_path, write_json
from teramind.geometry import Rect
from teramind.images import open_images
from teramind.volume import VolumeLayout, open_level, volume_layout

SUMMARY_SCALE_UM = 5.0
"""Smoothing of the correlations in the summary."""

NOTES = {
    "correlation": "Pearson r of two images after Gaussian smoothing (standard deviation "
    "scale_um); empty where one of the two is constant.",
    "density": "Molecules of all genes per bin of 16 x 16 pixels, the same value on every pixel of "
    "a bin. It knows positions to a bin only: the raster holds no finer ones.",
    "regression": "Grey level as a linear function of a bin's counts of every gene, fitted on all "
    "bins outside the holdout; without a holdout on all bins, and then flattered.",
    "neighbour": "The real image of the next section (of the one before for the last): how well "
    "real tissue predicts itself.",
    "interval": "low and high: 95 %, from drawing parts of the area again with replacement.",
    "log10_power_ratio": "Power of the generated image over the real one's, wavelengths from "
    "scale_um to twice that.",
    "border_ratio": "Mean squared step between pixels across borders of patches or slabs, over "
    "that a quarter of a cell beside them; 1 where no border shows.",
    "nuclei": "Otsu threshold of each image and watershed; f1 counts nuclei within 4 um of a real "
    "one as found.",
    "whole": "The part of the plane that volume and reference share, background and training area "
    "included. Only the holdout was kept from training.",
}


class Lattice(NamedTuple):
    """The cells whose borders may show: patch and slab edge, first slab's corner, in pixels."""

    patch: int
    slab: int
    corner: tuple[int, int]


def evaluate(
    *,
    volume: str | Path,
    raster: str | Path,
    reference: str | Path,
    holdout: Rect | None,
    lattice: Lattice,
    summary: str | Path,
    table: str | Path,
) -> dict[str, Any]:
    """Compare a volume with real images; write a summary (JSON) and every measure (CSV, Parquet).

    Memory: a tile of 1024 pixels and 80 um around it, in some ten float32 copies.

    Args:
        volume: generated volume; its origin says where it lies on the plane.
        raster: expression raster it was generated from.
        reference: real images as `resample_images` writes them: pixel (0, 0) of section 0 is the
            plane's, stains are the volume's.
        holdout: rectangle of the plane, in pixels, kept from training; None when there was none.
        lattice: the cells it was generated in.
        summary: JSON file to write; it is also returned.
        table: CSV file to write; the Parquet file beside it has the same name.

    Raises:
        UserError: when volume, reference and holdout share no pixels, or the stains differ.
    """
    layout = volume_layout(volume)
    images = open_images(reference, layout.stains)
    shared = _shared(layout, images, where=f"reference {reference}")
    if holdout is not None and not holdout.cut(shared).height:
        raise UserError(
            f"holdout {tuple(holdout)}: lies outside {tuple(shared)}, what volume and reference "
            "share; give a rectangle inside (y, x, height, width in pixels)"
        )
    expression = Raster.open(raster)
    comparison = _Comparison(
        layout=layout,
        generated=open_level(volume, 0),
        reference=images,
        raster=expression,
        regression=fit_regression(expression, images, holdout),
        shared=shared,
        lattice=lattice,
    )
    areas = {"holdout": holdout.cut(shared)} if holdout else {}
    areas["whole"] = shared
    measures = pd.DataFrame(comparison.rows(areas))
    _write_table(measures, Path(table))
    record = {
        "smoothing_um": SUMMARY_SCALE_UM,
        "pixel_size_um": layout.pixel_size_um,
        "holdout": holdout and list(holdout),
        "whole": list(shared),
        "notes": NOTES,
        "sections": _summary(measures),
    }
    write_json(summary, record)
    return record


def _write_table(measures: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        measures.to_csv(temporary, index=False, float_format="%.6g")
    with atomic_path(path.with_suffix(".parquet")) as temporary:
        measures.to_parquet(temporary, index=False)


def _summary(measures: pd.DataFrame) -> list[dict[str, Any]]:
    """For each section, stain and area the correlations and grey levels that the report shows."""
    records = []
    for (section, stain), rows in measures.groupby(["section", "stain"], sort=False):
        record: dict[str, Any] = {"section": int(section), "stain": stain, "holdout": None}
        for area, part in rows.groupby("area", sort=False):
            record[area] = _area_summary(part)
        records.append(record)
    return records


def _area_summary(rows: pd.DataFrame) -> dict[str, Any]:
    at_scale = rows[(rows["measure"] == "correlation") & (rows["scale_um"] == SUMMARY_SCALE_UM)]
    found: dict[str, Any] = {
        row.subject: None if np.isnan(row.value) else row.value for row in at_scale.itertuples()
    }
    grey = rows[rows["measure"].str.startswith("grey_")].set_index(["subject", "measure"])["value"]
    found["grey"] = {
        subject: {"mean": grey[subject, "grey_mean"], "sd": grey[subject, "grey_deviation"]}
        for subject in ("generated", "real")
    }
    nuclei = rows[rows["measure"].str.startswith("nuclei_")]
    found["nuclei"] = {
        measure.removeprefix("nuclei_"): {
            row.subject: None if np.isnan(row.value) else row.value for row in part.itertuples()
        }
        for measure, part in nuclei.groupby("measure", sort=False)
    }
    return found


class _Comparison(NamedTuple):
    """Everything that a section is compared with; rectangles are of the plane."""

    layout: VolumeLayout
    generated: zarr.Array[Any]
    reference: zarr.Array[Any]
    raster: Raster
    regression: Regression
    shared: Rect
    lattice: Lattice

    def rows(self, areas: dict[str, Rect]) -> Iterator[dict[str, Any]]:
        """Every measure of every section that both have, stain and area."""
        first = self.place.first
        last = min(first + self.generated.shape[1], self.reference.shape[1])
        for section in range(first, last):
            for c, stain in enumerate(self.layout.stains):
                scene = self.scene(section, c)
                for area, rect in areas.items():
                    for measure in scene.measures(rect):
                        yield {
                            "section": section,
                            "stain": stain,
                            "area": area,
                            **measure._asdict(),
                        }

    @property
    def place(self) -> Place:
        return volume_place(self.layout)

    def scene(self, section: int, c: int) -> Scene:
        """One section of one stain."""
        subjects: dict[str, Image] = {
            "generated": partial(self._read_generated, section, c),
            "density": self._density(section),
            "regression": partial(self.regression.predict, self.raster, section, stain=c),
        }
        if self.reference.shape[1] > 1:
            other = section + 1 if section + 1 < self.reference.shape[1] else section - 1
            subjects["neighbour"] = partial(self._read_real, other, c)
        return Scene(
            real=partial(self._read_real, section, c),
            subjects=subjects,
            stain=self.layout.stains[c],
            pixel_size_um=self.layout.pixel_size_um,
            whole=self.shared,
            borders={
                "patch": (self.lattice.patch, self.lattice.corner),
                "slab": (self.lattice.slab, self.lattice.corner),
            },
        )

    def _read_generated(self, section: int, c: int, rect: Rect) -> NDArray[np.uint8]:
        first, whole = self.place
        return np.asarray(self.generated[c, section - first, *rect.within(whole)])

    def _read_real(self, section: int, c: int, rect: Rect) -> NDArray[np.uint8]:
        rows, cols = slice(rect.y, rect.bottom), slice(rect.x, rect.right)
        return np.asarray(self.reference[c, section, rows, cols])

    def _density(self, section: int) -> Image:
        """Molecule density scaled so that its largest value is 255."""
        tiles = blocks_of(self.shared, RASTER_TILE)
        largest = max(float(density(self.raster, section, tile).max()) for tile in tiles)

        def image(rect: Rect) -> NDArray[np.float32]:
            return density(self.raster, section, rect) * np.float32(255 / max(largest, 1))

        return image


def _shared(layout: VolumeLayout, images: zarr.Array[Any], *, where: str) -> Rect:
    """Return the rectangle of the plane that both cover, in at least one section."""
    first, rect = volume_place(layout)
    _, sections, height, width = images.shape
    shared = rect.cut(Rect(0, 0, height, width))
    if not shared.height or first >= sections:
        raise UserError(
            f"{where}: {sections} sections of {height} x {width} pixels share nothing with the "
            f"volume, which starts at section {first} and covers {tuple(rect)} (y, x, height, "
            "width); give images of the same plane"
        )
    return shared
