"""How closely generated sections follow the real ones, against what molecule density alone gives.

Images are compared after Gaussian smoothing, because two samples of the same tissue agree on where
cells crowd, not on single pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from teramind.errors import UserError
from teramind.expression import Raster
from teramind.files import write_json
from teramind.geometry import BIN, Rect
from teramind.images import open_images
from teramind.volume import VolumeLayout, open_level, volume_layout

Floats = NDArray[np.float32]

FLAT = 1e-5
"""An image that varies by less than this part of its largest value is constant up to rounding."""

NOTES = {
    "correlation": "Pearson r of two images after Gaussian smoothing (smoothing_um is its standard "
    "deviation); null where one of the two is constant.",
    "density": "Molecules of all genes per bin of 16 x 16 pixels, the same value on every pixel of "
    "a bin, smoothed alike. It knows positions to a bin only: the raster holds no finer ones.",
    "grey": "Mean and standard deviation of the unsmoothed grey levels.",
    "whole": "The part of the plane that volume and reference share, background and training area "
    "included. Only the holdout was kept from training.",
}


class Place(NamedTuple):
    """Where a volume lies: its first section and its rectangle of the plane in pixels."""

    first: int
    rect: Rect


def volume_place(layout: VolumeLayout) -> Place:
    """Read a volume's place off its origin: section k lies at k spacings, pixel i at i pixels."""
    z, y, x = layout.origin_um
    pixel, (_, _, height, width) = layout.pixel_size_um, layout.shape
    rect = Rect(round(y / pixel), round(x / pixel), height, width)
    return Place(round(z / layout.section_spacing_um), rect)


def smoothed_correlation(
    *, generated: ArrayLike, reference: ArrayLike, sigma_px: float, rect: Rect
) -> float | None:
    """Correlate two images (y, x) on `rect` after smoothing both whole; None if one is constant.

    `sigma_px` is the standard deviation of the Gaussian in pixels, `rect` in pixels of the arrays.
    """
    images = (_smooth(np.asarray(image), sigma_px) for image in (generated, reference))
    window = rect.within(Rect(0, 0, *np.shape(reference)))
    return _correlation(*(image[window] for image in images))


def molecule_density(raster: Raster, section: int, rect: Rect, *, sigma_px: float) -> Floats:
    """Return molecules per bin on the pixels (y, x) of `rect`, smoothed within it."""
    around = rect.rounded_out(BIN)
    totals = raster.totals(section=section, rect=around).astype(np.float32)
    pixels = totals.repeat(BIN, axis=0).repeat(BIN, axis=1)
    return _smooth(pixels[rect.within(around)], sigma_px)


def evaluate(
    *,
    volume: str | Path,
    raster: str | Path,
    reference: str | Path,
    holdout: Rect | None,
    smoothing_um: float = 5.0,
    path: str | Path,
) -> dict[str, Any]:
    """Compare a volume with real images, section by section, and write evaluation.json.

    Memory: one section of one stain, in about six float32 copies.

    Args:
        volume: generated volume; its origin says where it lies on the plane.
        raster: expression raster it was generated from.
        reference: real images as `resample_images` writes them: pixel (0, 0) of section 0 is the
            plane's, stains are the volume's.
        holdout: rectangle of the plane, in pixels, kept from training; None when there was none.
        smoothing_um: standard deviation of the smoothing in um.
        path: JSON file to write.

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
    comparison = _Comparison(
        generated=open_level(volume, 0),
        reference=images,
        raster=Raster.open(raster),
        place=volume_place(layout),
        shared=shared,
        areas={"holdout": holdout and holdout.cut(shared), "whole": shared},
        sigma_px=smoothing_um / layout.pixel_size_um,
    )
    record = {
        "smoothing_um": smoothing_um,
        "pixel_size_um": layout.pixel_size_um,
        "holdout": holdout and list(holdout),
        "whole": list(shared),
        "notes": NOTES,
        "sections": comparison.rows(layout.stains),
    }
    write_json(path, record)
    return record


class _Comparison(NamedTuple):
    """Everything that one section of one stain is compared with; rectangles are of the plane."""

    generated: zarr.Array[Any]
    reference: zarr.Array[Any]
    raster: Raster
    place: Place
    shared: Rect
    areas: dict[str, Rect | None]
    sigma_px: float

    def rows(self, stains: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return a record per section that both have, and stain."""
        first = self.place.first
        last = min(first + self.generated.shape[1], self.reference.shape[1])
        return [
            {"section": section, "stain": stain, **self.compare(section, c)}
            for section in range(first, last)
            for c, stain in enumerate(stains)
        ]

    def compare(self, section: int, c: int) -> dict[str, Any]:
        """Compare one section of one stain on every area."""
        z = section - self.place.first
        generated = np.asarray(self.generated[c, z, *self.shared.within(self.place.rect)])
        reference = np.asarray(self.reference[c, section, *_slices(self.shared)])
        real = _smooth(reference, self.sigma_px)
        made = self._correlations(_smooth(generated, self.sigma_px), real)
        density = self._correlations(
            molecule_density(self.raster, section, self.shared, sigma_px=self.sigma_px), real
        )
        return {
            name: area
            and {
                "generated": made[name],
                "density": density[name],
                "grey": {
                    "generated": _grey(generated[area.within(self.shared)]),
                    "reference": _grey(reference[area.within(self.shared)]),
                },
            }
            for name, area in self.areas.items()
        }

    def _correlations(self, image: Floats, real: Floats) -> dict[str, float | None]:
        cuts = {name: area.within(self.shared) for name, area in self.areas.items() if area}
        return {name: _correlation(image[cut], real[cut]) for name, cut in cuts.items()}


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


def _slices(rect: Rect) -> tuple[slice, slice]:
    return slice(rect.y, rect.bottom), slice(rect.x, rect.right)


def _smooth(image: NDArray[Any], sigma_px: float) -> Floats:
    """Smooth by normalised convolution: what lies beyond the edges has no weight."""
    smooth = gaussian_filter(image.astype(np.float32), sigma_px, mode="constant")
    for axis, length in enumerate(image.shape):
        weight = gaussian_filter(np.ones(length, np.float32), sigma_px, mode="constant")
        smooth /= np.expand_dims(weight, 1 - axis)
    return np.asarray(smooth, np.float32)


def _correlation(a: Floats, b: Floats) -> float | None:
    """Pearson correlation, or None where one image is constant."""
    if any(np.ptp(image) <= FLAT * np.abs(image).max() for image in (a, b)):
        return None
    a, b = (image - np.float32(image.mean(dtype=np.float64)) for image in (a, b))
    total = [float(np.sum(p * q, dtype=np.float64)) for p, q in ((a, b), (a, a), (b, b))]
    return float(total[0] / np.sqrt(total[1] * total[2]))


def _grey(image: NDArray[np.uint8]) -> dict[str, float]:
    return {"mean": float(image.mean()), "sd": float(image.std())}
