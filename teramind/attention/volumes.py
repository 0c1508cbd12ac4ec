"""The pathways' volumes: OME-Zarr at bin resolution, float32, one channel per kind and gene."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teramind.attention.pathways import Pathway, channel_names, map_kinds, on_panel, read_pathways
from teramind.attention.regions import Regions, open_regions
from teramind.config import Attention, Config
from teramind.errors import UserError
from teramind.expression.panel import read_synonyms
from teramind.expression.raster import Raster
from teramind.files import scratch_folder
from teramind.geometry import BIN
from teramind.volume import VolumeLayout, create_volume, volume_layout
from teramind.volume.layout import OtherVolumeError
from teramind.volume.metadata import read_metadata

if TYPE_CHECKING:
    from teramind.network.spec import NetworkSpec

WHITE = 4.0
"""Value that viewers show at full brightness at first."""


def volume_path(folder: Path, pathway: str) -> Path:
    """Where a pathway's volume lies."""
    return folder / f"{pathway}.zarr"


def pathways_of(
    config: Config, settings: Attention, panel: Sequence[str], spec: NetworkSpec | None
) -> list[tuple[Pathway, list[int]]]:
    """Pathways of a configuration with their genes' names and places on the panel.

    Args:
        config: for its synonyms.
        settings: its section `attention`.
        panel: of the raster.
        spec: the network, which may read the first genes alone; None for one that reads them all.
    """
    names, read = config.expression.synonyms, panel[: spec.genes] if spec else panel
    return on_panel(read_pathways(settings.pathways), read, read_synonyms(names) if names else None)


def regions_of(config: Config, settings: Attention) -> Regions | None:
    """Open the regions that a configuration names, if any."""
    if settings.regions is None:
        return None
    plane = config.plane
    return open_regions(
        settings.regions,
        plane=plane.rect,
        drawn=config.wanted.cut(plane.rect),
        sections=plane.sections,
        pixel_size_um=plane.pixel_size_um,
        units=settings.units,
    )


def create_pathway_volumes(
    config: Config, folder: Path, *, raster: Path, checkpoint: Path | None
) -> dict[str, Any]:
    """Create the empty volumes, axes c, z, y, x, each shard all channels of a section and slab.

    Their place in micrometres is that of the image volume: a bin is 16 x 16 of its pixels. Volumes
    that lie there of other pathways or settings are removed, nothing in them can be used again, and
    with a pathway its pictures.

    Args:
        config: with a section `attention`.
        folder: of the volumes.
        raster: the expression.
        checkpoint: the network; None for one that is yet to learn, from all genes of the raster.

    Returns:
        The record: genes of each pathway, by the panel's names, and the text of the volumes'
        metadata.

    Raises:
        UserError: when pathways are malformed, their genes not among those that the network reads,
            or the regions do not fit the plane.
    """
    from teramind.network.spec import read_spec

    assert config.attention is not None
    spec = read_spec(checkpoint) if checkpoint else None
    found = pathways_of(config, config.attention, Raster.open(raster).panel, spec)
    regions_of(config, config.attention)  # a file that does not fit is told before any slab
    for pathway, _ in found:
        path, layout = volume_path(folder, pathway.name), _layout_of(config, pathway)
        try:
            create_volume(path, layout)
        except OtherVolumeError:
            _remove_volume(path)
            create_volume(path, layout)
    made = {pathway.name: list(pathway.genes) for pathway, _ in found}
    _remove_others(folder, made)
    volumes = [volume_path(folder, name) for name in made]
    return {"pathways": made, "metadata": read_metadata(*volumes, root=folder)}


def _layout_of(config: Config, pathway: Pathway) -> VolumeLayout:
    layout, plane, centre = config.layout(), config.plane, (BIN - 1) / 2
    region, windows = layout.region, layout.windows
    kinds, names = map_kinds(windows.sections), channel_names(pathway, windows.sections)
    return VolumeLayout(
        shape=(len(names), windows.generated, region.height // BIN, region.width // BIN),
        slab=layout.slab // BIN,
        pixel_size_um=plane.pixel_size_um * BIN,
        section_spacing_um=plane.section_spacing_um,
        stains=names,
        origin_um=config.centre_um(windows.first, region.y + centre, region.x + centre),
        attributes={
            "pathway": pathway.name,
            "genes": list(pathway.genes),
            "kinds": list(kinds),
            "first_section": windows.first,
            "settings": config.identity(),
        },
        dtype="float32",
        colours=pathway.colours * len(kinds),
        white=WHITE,
        together=len(names),
    )


def _remove_others(folder: Path, names: Collection[str]) -> None:
    """Remove volumes and pictures of other pathways, nothing else, and follow no links."""
    for path in sorted(folder.glob("*.zarr")):
        if path.stem not in names and not path.is_symlink() and _is_pathway(path):
            _remove_pictures(folder / "pictures" / path.stem)
            _remove_volume(path)


def _remove_volume(path: Path) -> None:
    """Remove a volume: at once, so that no part of one is left by a job that is killed."""
    with scratch_folder(path) as aside:
        path.rename(aside / path.name)


def _is_pathway(path: Path) -> bool:
    """Whether a folder holds the volume of the pathway that it is named after."""
    try:
        return volume_layout(path).attributes.get("pathway") == path.stem
    except UserError:
        return False


def _remove_pictures(folder: Path) -> None:
    """Remove a pathway's pictures, and their folder if nothing else is in it."""
    if not folder.is_dir() or folder.is_symlink() or folder.parent.is_symlink():
        return
    for path in (*folder.glob("section_*.png"), *folder.glob("joint.png")):
        path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
