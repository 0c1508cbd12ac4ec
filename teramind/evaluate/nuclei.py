"""Nuclei of two images: found by the same classical procedure, counted, measured, matched."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

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
"""How far beyond a tile nuclei are found: a nucleus and its nearest neighbour fit in."""


class Nuclei(NamedTuple):
    """Middles (n, 2) as y, x in um, equivalent diameters (n,) in um, mean grey levels (n,)."""

    middles: Floats
    diameters: Floats
    greys: Floats


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


class Census:
    """Nuclei of one image beside the real ones, to be summed over rectangles."""

    def __init__(self, nuclei: Nuclei, real: Nuclei | None) -> None:
        self._nuclei, self._real = nuclei, np.empty((0, 2)) if real is None else real.middles
        self._nearest = nearest_neighbours_um(nuclei.middles)
        self._found = matched(nuclei.middles, self._real) >= 0

    def sums(self, low: Floats, high: Floats) -> dict[str, Floats]:
        """Sums for `ratio` (for `f1` those it takes) of nuclei with middles in [low, high) um."""
        here = _between(self._nuclei.middles, low, high)
        number, apart = here.sum(), self._nearest[here]
        apart = apart[np.isfinite(apart)]
        real = _between(self._real, low, high).sum()
        sums = {
            "per_mm2": (number, np.prod(high - low) / 1e6),
            "diameter_um": (self._nuclei.diameters[here].sum(), number),
            "grey": (self._nuclei.greys[here].sum(), number),
            "nearest_um": (apart.sum(), len(apart)),
            "f1": (self._found[here].sum(), number, real),
        }
        return {name: np.array(values, float) for name, values in sums.items()}


def _between(middles: Floats, low: Floats, high: Floats) -> NDArray[np.bool_]:
    return np.asarray(((middles >= low) & (middles < high)).all(1))


def f1(sums: NDArray[Any]) -> float:
    """Detection F1 from (matched, made, real)."""
    pairs, made, real = sums
    return float(2 * pairs / (made + real)) if made + real else float("nan")
