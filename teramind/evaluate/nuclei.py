"""Nuclei of two images: found by the same classical procedure, counted, measured, matched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

from teramind.geometry import Rect

Floats = NDArray[np.float64]

SMOOTH_UM = 0.7
"""Standard deviation of the Gaussian before the threshold."""

APART_UM = 3.0
"""Least distance between the middles of two nuclei that touch."""

LEAST_UM2 = 8.0
"""Area below which a bright spot is no nucleus."""

MATCH_UM = 4.0
"""Distance within which two nuclei are the same."""

NEAR_UM = 30.0
"""How far around a rectangle one looks: a nucleus and its nearest neighbour fit in."""


class Nuclei(NamedTuple):
    """Middles (n, 2) as y, x in um, equivalent diameters (n,) in um, mean grey levels (n,)."""

    middles: Floats
    diameters: Floats
    greys: Floats

    def moved(self, by_um: Floats) -> Nuclei:
        """The same somewhere else."""
        return self._replace(middles=self.middles + by_um)

    def chosen(self, which: NDArray[np.bool_]) -> Nuclei:
        """Some of them."""
        return Nuclei(*(values[which] for values in self))


class Finder(Protocol):
    """What finds the nuclei of an image."""

    def __call__(self, image: NDArray[np.uint8], *, threshold: float) -> Nuclei:
        """Find them in (y, x); `threshold` is the grey level of its `otsu`."""


def otsu(histogram: NDArray[Any]) -> float:
    """Grey level half-way between dark and bright pixels, of 256 counts.

    The two are told apart by N. Otsu, IEEE Trans. SMC 9, 1979; half-way between their means a
    blurred edge stays where it was.
    """
    from skimage.filters import threshold_otsu

    levels = np.arange(len(histogram))
    present = levels[histogram > 0]
    if len(present) < 2:
        return float(present.max(initial=0))
    dark = levels <= threshold_otsu(hist=(histogram, levels))
    means = [np.average(levels[part], weights=histogram[part]) for part in (dark, ~dark)]
    return float(np.mean(means))


def find_nuclei(image: NDArray[np.uint8], *, pixel_size_um: float, threshold: float) -> Nuclei:
    """Segment nuclei: smooth, threshold, part those that touch by their distance from the edge.

    Args:
        image: (y, x) nuclear stain.
        pixel_size_um: edge of a pixel.
        threshold: grey level above which a pixel is nucleus; see `otsu`.
    """
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    smoothed = ndimage.gaussian_filter(image.astype(np.float32), SMOOTH_UM / pixel_size_um)
    bright = smoothed > threshold
    if not bright.any():
        return Nuclei(np.empty((0, 2)), np.empty(0), np.empty(0))
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(bright), 1.0)
    things, _ = ndimage.label(bright)
    apart = max(round(APART_UM / pixel_size_um), 1)
    peaks = peak_local_max(depth, min_distance=apart, labels=things, exclude_border=False)
    seeds = np.zeros(image.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-depth, seeds, mask=bright)
    return measure_labels(image, labels, pixel_size_um)


def measure_labels(image: NDArray[np.uint8], labels: NDArray[Any], pixel_size_um: float) -> Nuclei:
    """Measure segmented nuclei: `labels` (y, x) has a number from 1 for each, 0 elsewhere."""
    numbers = np.arange(1, labels.max() + 1)
    pixels = np.bincount(labels.ravel(), minlength=len(numbers) + 1)[1:]
    numbers = numbers[pixels * pixel_size_um**2 >= LEAST_UM2]
    if not len(numbers):
        return Nuclei(np.empty((0, 2)), np.empty(0), np.empty(0))
    middles = np.array(ndimage.center_of_mass(labels > 0, labels, numbers))
    return Nuclei(
        (middles + 0.5) * pixel_size_um,
        2 * np.sqrt(pixels[numbers - 1] / np.pi) * pixel_size_um,
        np.asarray(ndimage.mean(image, labels, numbers)),
    )


def nearest_neighbours_um(middles: Floats) -> Floats:
    """Distance of each point (n, 2) to the nearest other; infinite for a single point."""
    if len(middles) < 2:
        return np.full(len(middles), np.inf)
    return np.asarray(cKDTree(middles).query(middles, k=2)[0][:, 1])


def matched(made: Floats, real: Floats) -> NDArray[np.intp]:
    """For each point made (n, 2) the index of its partner among real (m, 2), or -1.

    As many pairs as possible, none farther apart than `MATCH_UM`.
    """
    if not len(made) or not len(real):
        return np.full(len(made), -1)
    near = cKDTree(made).query_ball_tree(cKDTree(real), MATCH_UM)
    rows = np.repeat(np.arange(len(made)), [len(n) for n in near])
    cols = np.array([c for n in near for c in n], int)
    graph = coo_array((np.ones(len(rows), bool), (rows, cols)), shape=(len(made), len(real)))
    return np.asarray(maximum_bipartite_matching(graph.tocsr(), perm_type="column"))


def inside(middles: Floats, rect: Rect, pixel_size_um: float) -> NDArray[np.bool_]:
    """Which middles (n, 2) in um lie in a rectangle of the plane."""
    pixels = middles / pixel_size_um - (rect.y, rect.x)
    return np.asarray(((pixels >= 0) & (pixels < (rect.height, rect.width))).all(1))


def census(
    nuclei: Nuclei, real: Nuclei | None, *, area: Rect, edge: int, pixel_size_um: float
) -> Iterator[tuple[Rect, dict[str, Floats]]]:
    """Nuclei of an image beside the real ones, block by block.

    Args:
        nuclei: of the image, and those around `area`, where the nearest one may lie.
        real: of the real image; None where there is none.
        area: what is judged, in pixels; pairs are made of the nuclei in it.
        edge: of a block in pixels.
        pixel_size_um: edge of a pixel.

    Yields:
        Each block and the sums for `ratio` of what lies in it. Those of "f1" are the nuclei of
        both images that have a partner, and all of them.
    """
    here = inside(nuclei.middles, area, pixel_size_um)
    made, others = nuclei.middles[here], np.empty((0, 2))
    if real is not None:
        others = real.middles[inside(real.middles, area, pixel_size_um)]
    partners = matched(made, others)
    paired = partners >= 0
    nearest = nearest_neighbours_um(nuclei.middles)[here]
    known = np.isfinite(nearest)
    blocks = list(area.blocks(edge))
    at, at_real = (_block_of(points, area, edge, pixel_size_um) for points in (made, others))

    def summed(places: NDArray[np.intp], values: Floats | None = None) -> NDArray[Any]:
        return np.bincount(places, values, minlength=len(blocks))

    number = summed(at)
    sums = {
        "per_mm2": (number, [b.area * pixel_size_um**2 / 1e6 for b in blocks]),
        "diameter_um": (summed(at, nuclei.diameters[here]), number),
        "grey": (summed(at, nuclei.greys[here]), number),
        "nearest_um": (summed(at[known], nearest[known]), summed(at[known])),
        "f1": (
            summed(at[paired]) + summed(at_real[partners[paired]]),
            number + summed(at_real),
        ),
    }
    by_block = {name: np.stack(pair, 1).astype(float) for name, pair in sums.items()}
    for k, block in enumerate(blocks):
        yield block, {name: values[k] for name, values in by_block.items()}


def _block_of(middles: Floats, area: Rect, edge: int, pixel_size_um: float) -> NDArray[np.intp]:
    """Number of the block in which each middle lies, row by row."""
    rows, columns = ((middles / pixel_size_um - (area.y, area.x)) // edge).astype(np.intp).T
    return np.asarray(rows * -(-area.width // edge) + columns)
