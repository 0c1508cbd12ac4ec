"""A pair of small images and their molecules, and windows to train on it."""

import numpy as np

from teramind.config import Train
from teramind.expression.raster import Raster
from teramind.expression.raster_writer import RasterWriter
from teramind.geometry import BIN, Rect
from teramind.training.dataset import PairedImages, TrainingWindows

FIELD = Rect(0, 0, 128, 160)
SETTINGS = Train(steps=6, learning_rate=3e-3, warmup=3, save_minutes=60)


def write_raster(path, molecules, *, sections):
    """A raster of the field with molecules (section, y, x, gene, count)."""
    section, y, x, gene, count = np.array(molecules, int).reshape(-1, 5).T
    panel = ("Gad1", "Slc17a7", "Th")
    with RasterWriter(path, panel=panel, sections=sections, extent=FIELD) as writer:
        writer.add(section=section, y=y, x=x, gene=gene, count=count)
    return Raster.open(path)


def blobs():
    """Two sections that are bright where gene 0 is: images and molecules."""
    random = np.random.default_rng(4)
    bright = random.random((2, FIELD.height // BIN, FIELD.width // BIN)) < 0.4
    section, row, col = np.nonzero(bright)
    gene, count = np.zeros_like(row), random.integers(3, 9, len(row))
    molecules = np.stack([section, row * BIN, col * BIN, gene, count], 1)
    image = np.where(bright, 230, 15).repeat(BIN, 1).repeat(BIN, 2)
    return np.stack([image, 255 - image]).astype(np.uint8), molecules


def blob_windows(folder, spec, **changes):
    """Windows over the pair of `blobs`."""
    images, molecules = blobs()
    folder.mkdir(parents=True, exist_ok=True)
    raster = write_raster(folder / "raster", molecules, sections=2)
    options = {"edge": 2, "batch": 1, "seed": 0} | changes
    return TrainingWindows(PairedImages(images, raster), spec, **options)
