"""What a training run learns from, as the config says: a plane's own images, or published tiles."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from teramind.config import Config, Train
from teramind.errors import UserError
from teramind.expression.panel import read_panel
from teramind.expression.raster import Raster
from teramind.files import digest
from teramind.images.resample import open_images, require_plane
from teramind.network import NetworkSpec
from teramind.split import Part, Split
from teramind.training.dataset import PairedImages, TrainingWindows, WindowSource
from teramind.training.preview import fullest, generate_piece, piece_of, real_piece
from teramind.training.tile_windows import TilePair, TileWindows, listed_tiles
from teramind.training.watch import Sample


class Material(Protocol):
    """Where windows come from."""

    @property
    def name(self) -> str:
        """What the checkpoint's record says that it learned from."""
        ...

    @property
    def panel(self) -> tuple[str, ...]:
        """Genes in the network's order."""
        ...

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files and folders that tell this data from other data."""
        ...

    def windows(self, spec: NetworkSpec) -> WindowSource:
        """The windows to learn from."""
        ...

    def validation(self, spec: NetworkSpec) -> WindowSource | None:
        """Windows of the validation part; None where there is none."""
        ...

    def sample(self, spec: NetworkSpec) -> Sample | None:
        """A piece of tissue to generate and compare; None where no plane is at hand."""
        ...


def open_material(config: Config) -> Material:
    """Open what the sections `train` and `reference` name.

    Raises:
        UserError: when something is missing or does not fit.
    """
    assert config.train is not None
    if config.train.tiles is not None:
        return PublishedTiles(config, config.train)
    return OwnImages(config, config.train)


def sizes_digest(paths: Iterable[Path]) -> str:
    """Digest of the names and sizes of files, and of those in folders.

    Pixels and molecules are stored compressed: where they differ, sizes do. No file is read.
    """
    found = [
        f"{file.relative_to(path)} {file.stat().st_size}"
        for path in paths
        for file in sorted(path.rglob("*") if path.is_dir() else [path])
        if file.is_file()
    ]
    return digest("\n".join(found).encode())


class OwnImages:
    """Images and expression of the plane, by its split."""

    def __init__(self, config: Config, asked: Train) -> None:
        self.config, self.asked, self.files = config, asked, config.files
        self.split = Split.read(self.files.split)
        self.name = config.expression.source
        self.panel = Raster.open(self.files.raster).panel
        self.paths = (self.files.images, self.files.raster)

    def windows(self, spec: NetworkSpec) -> WindowSource:
        """See `Material`."""
        return self._windows(spec, "train")

    def validation(self, spec: NetworkSpec) -> WindowSource | None:
        """See `Material`."""
        if not self.split.validation:
            return None
        return self._windows(spec, "validation")

    def sample(self, spec: NetworkSpec) -> Sample | None:
        """See `Material`: in the middle of the fullest validation block, or of the plane."""
        pairs = self._pairs()
        areas = self.split.validation or (pairs.area,)
        piece = fullest([piece_of(area, spec.patch) for area in areas], pairs.raster)
        return Sample(
            generate=lambda network: generate_piece(network, pairs, piece),
            real=real_piece(pairs, spec.sections, piece),
            stains=spec.stains,
        )

    def _windows(self, spec: NetworkSpec, part: Part) -> TrainingWindows:
        return TrainingWindows(
            self._pairs(),
            spec,
            edge=self.asked.window,
            batch=self.asked.batch,
            seed=self.asked.seed,
            closed=self.split.closed(part),
            part=part,
        )

    def _pairs(self) -> PairedImages:
        """Images and raster, opened and compared with the plane."""
        path, plane, network = self.files.images, self.config.plane, self.config.network
        images = open_images(path, network.stains)
        require_plane(
            images, plane.rect, sections=plane.sections, path=path, tolerance=network.patch
        )
        return PairedImages(images, Raster.open(self.files.raster))


class PublishedTiles:
    """Published training tiles, by mouse: those of the mouse left out validate."""

    def __init__(self, config: Config, asked: Train) -> None:
        assert asked.tiles is not None and config.expression.panel is not None
        self.asked, self.sections = asked, config.plane.sections
        self.name = asked.tiles.folder
        self.panel = tuple(read_panel(Path(config.expression.panel)))
        names = getattr(config.expression, "gene_names", None)
        self.names = tuple(read_panel(Path(names))) if names else self.panel
        self.genes = getattr(config.expression, "genes", len(self.names))
        lists = [Path(path) for path in asked.tiles.lists]
        by_mouse = listed_tiles(lists, Path(asked.tiles.folder))
        listed = (path for pairs in by_mouse.values() for pair in pairs for path in pair)
        self.paths = (*lists, *listed)
        left_out = asked.tiles.leave_out
        if left_out is not None and left_out not in by_mouse:
            raise UserError(
                f"train.tiles.leave_out: got {left_out!r}; must be among the lists' mice "
                f"{sorted(by_mouse)}"
            )
        self.left_out = by_mouse.pop(left_out, []) if left_out else []
        self.tiles = [pair for pairs in by_mouse.values() for pair in pairs]

    def windows(self, spec: NetworkSpec) -> WindowSource:
        """See `Material`."""
        return self._windows(self.tiles, spec)

    def validation(self, spec: NetworkSpec) -> WindowSource | None:
        """See `Material`."""
        if not self.left_out:
            return None
        return self._windows(self.left_out, spec)

    def sample(self, spec: NetworkSpec) -> Sample | None:
        """None: a tile has no plane around it to generate on."""
        return None

    def _windows(self, tiles: list[TilePair], spec: NetworkSpec) -> TileWindows:
        return TileWindows(
            tiles,
            spec,
            names=self.names,
            genes=self.genes,
            sections=self.sections,
            edge=self.asked.window,
            batch=self.asked.batch,
            seed=self.asked.seed,
        )
