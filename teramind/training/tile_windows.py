"""Training windows of the published tiles: what the release trains on, read in place.

A mouse's network is trained on the other mice's tiles. `gene_<mouse>/<tile>.npz` is the expression
of a tile, `img_<mouse>/<tile>.zip` its images; CSV files list the former in a column `pth`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from teramind.errors import UserError
from teramind.expression.tile_file import TileFile, position
from teramind.expression.tiles import SPAN, read_tile
from teramind.geometry import BIN, PADDING
from teramind.network.spec import NetworkSpec
from teramind.training.dataset import RandomWindows, aligned_patches, turn
from teramind.training.tile_images import STAINS, read_image


class TilePair(NamedTuple):
    """One training tile."""

    genes: Path
    image: Path


class TileCut(NamedTuple):
    """Where a window is cut out of a tile, and how it is turned.

    The image is the square at `y`, `x`, framed by half a patch of nothing; `row`, `column` are the
    window's first aligned patch in it, `start` its first expression section.
    """

    tile: int
    y: int
    x: int
    start: int
    row: int
    column: int
    turns: int
    flip: int


class TileWindows(RandomWindows[TileCut]):
    """Random windows of published training tiles, each a pure function of (seed, step).

    As in the release (model and data code, 2025): a square of 4 x 4 patches (2 x 2 where P is 128)
    anywhere in a tile, at any first section, turned and flipped; around it half a patch of nothing,
    images and expression alike; of the aligned patches of that, p x p next to each other. Sections
    beyond the stack are empty. The release never draws the last first section; here it is drawn.

    Args:
        tiles: what to draw from.
        spec: the network's architecture; its panel names the genes to read.
        names: genes of one section on the tiles' last axis, of the first ones at least.
        genes: how many there are.
        sections: sections of a tile.
        edge: aligned patches p along a window's edge; 2 in the release.
        batch: windows per step.
        seed: of places, turns, timesteps and noise.

    Raises:
        UserError: when there is no tile, or tiles and network do not fit each other.
    """

    def __init__(
        self,
        tiles: Sequence[TilePair],
        spec: NetworkSpec,
        *,
        names: Sequence[str],
        genes: int,
        sections: int,
        edge: int,
        batch: int,
        seed: int,
    ) -> None:
        super().__init__(spec, edge=edge, batch=batch, seed=seed)
        self.tiles = tiles
        self.sections, self.genes = sections, genes
        self.square = SPAN // 2 if spec.patch == 128 else 4 * spec.patch
        self._check(names)
        place = {gene: k for k, gene in enumerate(spec.panel)}
        self._target = np.full(genes, -1)
        self._target[: len(names)] = [place.get(name, -1) for name in names]
        self._stains = [STAINS.index(stain) for stain in spec.stains]

    @property
    def starts(self) -> int:
        """Number of sections at which a window may start, empty ones before the first included."""
        return self.sections + 2 * PADDING[self.spec.sections] - self.spec.sections + 1

    def _check(self, names: Sequence[str]) -> None:
        if not self.tiles:
            raise UserError("training: no tiles left to train on")
        if len(names) > self.genes:
            raise UserError(
                f"expression.genes: {self.genes} on the tiles' last axis, but {len(names)} have "
                "names"
            )
        if absent := [gene for gene in self.spec.panel if gene not in names]:
            raise UserError(f"training: gene {absent[0]} of the panel is not on the tiles' axis")
        if strange := [stain for stain in self.spec.stains if stain not in STAINS]:
            raise UserError(f"training: the tiles have the stains {STAINS}, not {strange[0]}")
        most = self.square // self.spec.patch + 1
        if self.edge > most:
            raise UserError(f"train.window: {self.edge}; published tiles allow 2 to {most}")
        if self.starts < 1:
            raise UserError(
                f"training: {self.sections} sections are too few for windows of"
                f" {self.spec.sections}"
            )

    def _cut(self, rng: np.random.Generator) -> TileCut:
        free = SPAN - self.square + 1
        places = self.square // self.spec.patch + 2 - self.edge
        bounds = (len(self.tiles), free, free, self.starts, places, places, 4, 2)
        return TileCut(*(int(rng.integers(bound)) for bound in bounds))

    def _window(self, cut: TileCut) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image, inside = self._image(cut)
        counts = turn(self._counts(cut), cut.turns, bool(cut.flip), axes=(0, 1))
        image, inside = (turn(a, cut.turns, bool(cut.flip), axes=(1, 2)) for a in (image, inside))
        return image, inside, aligned_patches(counts, self.edge)

    def _part(self, cut: TileCut) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The window's pixels inside the square: slices in the tile, and in the window."""
        patch, half = self.spec.patch, self.spec.half
        pairs = []
        for corner, first in ((cut.y, cut.row), (cut.x, cut.column)):
            low = max(first * patch - half, 0)
            high = min(first * patch - half + self.size, self.square)
            shift = half - first * patch
            pairs.append((slice(corner + low, corner + high), slice(low + shift, high + shift)))
        (tile_y, y), (tile_x, x) = pairs
        return (tile_y, tile_x), (y, x)

    def _image(self, cut: TileCut) -> tuple[np.ndarray, np.ndarray]:
        """Window of the images in [-1, 1] and where it is inside, (stain z, W, W) both."""
        spec, (part, box) = self.spec, self._part(cut)
        first = cut.start + spec.first_image - PADDING[spec.sections]
        planes = range(first, first + spec.images)
        pixels = read_image(
            self.tiles[cut.tile].image,
            stains=self._stains,
            planes=planes,
            sections=self.sections,
            y=part[0],
            x=part[1],
        )
        image = np.full((spec.channels, self.size, self.size), -1, np.float32)
        inside = np.zeros(image.shape, bool)
        image[:, *box] = pixels.reshape(spec.channels, *pixels.shape[2:]) / np.float32(127.5) - 1
        inside[:, *box] = True
        return image, inside

    def _counts(self, cut: TileCut) -> NDArray[np.float32]:
        """Counts of the window, (bin y, bin x, S, G), binned from the square's corner."""
        spec, ((tile_y, tile_x), _) = self.spec, self._part(cut)
        found = read_tile(
            TileFile(self.tiles[cut.tile].genes), sections=self.sections, genes=self.genes
        )
        section = found.section - cut.start + PADDING[spec.sections]
        gene = self._target[found.gene]
        kept = (gene >= 0) & (section >= 0) & (section < spec.sections)
        kept &= (found.y >= tile_y.start) & (found.y < tile_y.stop)
        kept &= (found.x >= tile_x.start) & (found.x < tile_x.stop)
        top = cut.y + cut.row * spec.patch - spec.half
        left = cut.x + cut.column * spec.patch - spec.half
        row, column = (found.y[kept] - top) // BIN, (found.x[kept] - left) // BIN
        edge = self.size // BIN
        counts = np.zeros((edge, edge, spec.sections, spec.genes), np.float32)
        np.add.at(counts, (row, column, section[kept], gene[kept]), found.count[kept])
        return counts


def listed_tiles(lists: Sequence[Path], folder: Path) -> dict[str, list[TilePair]]:
    """Return the tiles that CSV files list in their column `pth`, by mouse.

    Of a path only `gene_<mouse>/<tile>.npz`, its end, counts: the release's lists name folders of
    the machine they were made on. Tiles are looked for in `folder`.

    Raises:
        UserError: when a list is none, or a tile or its image is missing.
    """
    found: dict[str, list[TilePair]] = {}
    for path in lists:
        for mouse, name in _rows(path):
            genes = folder / f"gene_{mouse}" / f"{name}.npz"
            pair = TilePair(genes, folder / f"img_{mouse}" / f"{name}.zip")
            found.setdefault(mouse, []).append(pair)
    for tiles in found.values():
        for kind, paths in zip(TilePair._fields, zip(*tiles, strict=True), strict=True):
            there = {path.name for path in paths[0].parent.glob("*")}
            missing = [path for path in paths if path.name not in there]
            if missing:
                raise UserError(f"{missing[0]}: {len(missing)} of {len(paths)} {kind} missing")
    return found


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """Yield mouse and tile of each line of a list."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if "pth" not in (rows.fieldnames or ()):
                raise UserError(f"{path}: no column pth; a list of training tiles has one")
            for row in rows:
                listed = PurePosixPath(row["pth"] or "")
                where = f"{path}, line {rows.line_num}"
                position(listed.name, where=where)
                prefix, _, mouse = listed.parent.name.partition("_")
                if prefix != "gene" or not mouse.isalnum():
                    raise UserError(f"{where}: {listed}: gene_<mouse>/<tile>.npz expected")
                yield mouse, listed.stem
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a CSV file: {error}") from error
