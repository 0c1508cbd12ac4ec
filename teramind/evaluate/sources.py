"""What is compared: a volume, its expression, real images, and where all of it lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from teramind.config import Config
from teramind.errors import UserError
from teramind.evaluate.baseline import Regression
from teramind.evaluate.comparison import Comparison
from teramind.evaluate.measure import Lattice
from teramind.expression.raster import Raster
from teramind.geometry import Rect
from teramind.images.resample import open_images
from teramind.split import Split
from teramind.volume import VolumeLayout, open_level, volume_layout
from teramind.volume.place import volume_place


@dataclass(frozen=True)
class Sources:
    """Where the parts of a comparison are.

    Attributes:
        volume: generated volume; its metadata say where it lies on the plane.
        raster: expression raster it was generated from.
        reference: real images as `resample_images` writes them: pixel (0, 0) of section 0 is the
            plane's, stains are the volume's. None when there are none.
        holdout: rectangle of the plane, in pixels, kept from training; None when there was none.
        lattice: the cells it was generated in.
    """

    volume: str | Path
    raster: str | Path
    reference: str | Path | None
    holdout: Rect | None
    lattice: Lattice

    @classmethod
    def of_run(cls, config: Config) -> Sources:
        """What a run of `config` compares; the holdout is read, so the parts must be there."""
        layout, files = config.layout(), config.files
        return cls(
            volume=files.volume,
            raster=files.raster,
            reference=files.images if config.reference else None,
            holdout=Split.read(files.split).test if config.reference else None,
            lattice=Lattice(layout.patch, layout.slab, (layout.region.y, layout.region.x)),
        )

    def open(self, regression: Regression | None = None) -> Comparison:
        """Open all of it, and find what volume and reference both show.

        Raises:
            UserError: when volume, reference and holdout share no pixels, or the stains differ.
        """
        layout = volume_layout(self.volume)
        shared = volume_place(layout).rect
        images = None if self.reference is None else open_images(self.reference, layout.stains)
        if images is not None:
            shared = _shared(layout, images, where=f"reference {self.reference}")
        holdout = self.holdout
        if holdout is not None and not holdout.cut(shared).height:
            raise UserError(
                f"holdout {tuple(holdout)}: lies outside {tuple(shared)}, what volume and "
                "reference share; give a rectangle inside (y, x, height, width in pixels)"
            )
        return Comparison(
            layout=layout,
            generated=open_level(self.volume, 0),
            reference=images,
            raster=Raster.open(self.raster),
            regression=regression,
            shared=shared,
            holdout=holdout,
            lattice=self.lattice,
        )


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
