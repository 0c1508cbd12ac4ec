"""A small piece of tissue generated in a few steps, to see how far training has come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from teramind.engine.generate import Generator
from teramind.engine.noise import PhiloxNoise
from teramind.engine.solver import sampling_steps
from teramind.engine.state import to_grey
from teramind.expression.raster import Raster
from teramind.geometry import Layout, Rect, Slab, Windows
from teramind.network import Network
from teramind.training.dataset import PairedImages

STEPS = 5
"""Sampling steps: a look, not a result."""

EDGE = 4
"""Patches along the piece's edge."""


def piece_of(area: Rect, patch: int) -> Rect:
    """A piece of whole patches in the middle of `area`, as large as fits up to `EDGE` patches."""
    lengths = [max(min(n // patch - 1, EDGE), 1) * patch for n in (area.height, area.width)]
    y = (area.y + (area.height - lengths[0]) // 2) // patch * patch
    x = (area.x + (area.width - lengths[1]) // 2) // patch * patch
    return Rect(max(y, 0), max(x, 0), *lengths)


def fullest(pieces: Sequence[Rect], raster: Raster) -> Rect:
    """The piece with most molecules in the middle section; background would show nothing."""
    middle = raster.sections // 2
    return max(pieces, key=lambda piece: int(raster.totals(section=middle, rect=piece).sum()))


def generate_piece(network: Network, pairs: PairedImages, rect: Rect) -> NDArray[np.uint8]:
    """Generate the middle z-window of `rect`, with the state -1 around it: (c, z, y, x)."""
    spec = network.spec
    windows = Windows(sections=spec.sections, planes=pairs.raster.sections)
    layout = Layout.whole(rect, patch=spec.patch, windows=windows, steps=STEPS)
    generator = Generator(
        network=network,
        expression=pairs.raster,
        noise=PhiloxNoise(seed=0, stains=len(spec.stains), patch=spec.patch),
        layout=layout,
        schedule=sampling_steps(STEPS),
    )
    window = len(windows) // 2
    state = generator.run_phase(Slab(window, 0, 0), 0, generator.initial(window))
    grey = to_grey(state)
    return grey.reshape(len(spec.stains), spec.images, *grey.shape[1:])


def real_piece(pairs: PairedImages, sections: int, rect: Rect) -> NDArray[np.uint8]:
    """The real images of the same window; black where there are none.

    Args:
        pairs: images and raster.
        sections: expression sections S of a window.
        rect: pixels of the plane.
    """
    windows = Windows(sections=sections, planes=pairs.raster.sections)
    shown = windows.images(len(windows) // 2)
    stains, planes, height, width = pairs.images.shape
    real = np.zeros((stains, len(shown), rect.height, rect.width), np.uint8)
    inside = rect.cut(Rect(0, 0, height, width))
    for k, z in enumerate(shown):
        if z < planes:
            pixels = pairs.images[:, z, *inside.slices]
            real[:, k, *inside.within(rect)] = np.asarray(pixels)
    return real
