"""What a network is: its sizes, gene panel and physical scale. Knows nothing of torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from teramind.errors import UserError
from teramind.geometry import BIN
from teramind.units import is_length

LEVEL_MULTIPLES = (1, 2, 4, 8)
"""Channels of level l are base times this; its patch edge is P / 2^l."""

ATTENTION_EDGE = 16
"""Image attention stands at the level whose patch edge is this many pixels, and in the middle."""

SECTION_KERNELS = {1: 1, 4: 3, 8: 5, 16: 9}
"""Expression sections of a window -> depth of the convolution that reduces them to images."""


PIXEL_TOLERANCE = 0.05
"""How far the pixel size may be from that of the training, as a share."""

METADATA_KEY = "teramind"
"""Where a safetensors header keeps the spec."""

LARGEST = 1 << 16
"""Bound of every size, so that a nonsensical checkpoint is refused before any arithmetic."""


@dataclass(frozen=True)
class NetworkSpec:
    """Architecture and scale of one network.

    Attributes:
        patch: patch edge P in pixels, a multiple of 32.
        sections: expression sections S in one z-window: 1, 4, 8 or 16.
        stains: stain names in channel order.
        genes: genes G the network reads.
        base: channels at full resolution.
        embed: width E of the time embedding.
        panel: gene names in the network's order; empty when the checkpoint does not say.
        pixel_size_um: edge of one pixel in um; None when the checkpoint does not say.
        section_spacing_um: distance of neighbouring sections in um; None when unknown.
        training: free-form record of how the weights were made.
        licence: licence of the weights.
    """

    patch: int
    sections: int
    stains: tuple[str, ...]
    genes: int
    base: int
    embed: int
    panel: tuple[str, ...] = ()
    pixel_size_um: float | None = None
    section_spacing_um: float | None = None
    training: dict[str, Any] = field(default_factory=dict)
    licence: str | None = None

    def __post_init__(self) -> None:
        if not 32 <= self.patch <= LARGEST or self.patch % 32:
            raise UserError(f"patch edge {self.patch}: must be 32, 64 or another multiple of 32")
        if self.sections not in SECTION_KERNELS:
            raise UserError(f"window of {self.sections} sections: must be 1, 4, 8 or 16")
        sizes = (len(self.stains), self.genes, self.base, self.embed)
        if min(sizes) < 1 or max(sizes) > LARGEST or self.base % 2:
            raise UserError(
                f"network of {len(self.stains)} stains, {self.genes} genes, base {self.base}, "
                f"time width {self.embed}: all must lie between 1 and {LARGEST} and base be even"
            )
        if self.panel and len(self.panel) != self.genes:
            raise UserError(f"panel of {len(self.panel)} genes for a network of {self.genes}")
        if len(set(self.panel)) < len(self.panel):
            raise UserError("panel: names a gene twice")

    @property
    def half(self) -> int:
        """Half a patch in pixels, the shift between aligned and shifted patches."""
        return self.patch // 2

    @property
    def bins(self) -> int:
        """Expression bins along one patch edge."""
        return self.patch // BIN

    @property
    def images(self) -> int:
        """Image sections Z that one window generates."""
        return (self.sections + 1) // 2

    @property
    def first_image(self) -> int:
        """Place of the first image section among the window's expression sections."""
        return (self.sections - self.images) // 2

    @property
    def channels(self) -> int:
        """Image channels of one patch, stain-major (stain, z)."""
        return len(self.stains) * self.images

    @property
    def gene_token(self) -> int:
        """Width D of a gene token: its counts in one patch and window, flattened (z, y, x)."""
        return self.sections * self.bins**2

    @property
    def widths(self) -> tuple[int, ...]:
        """Image channels of levels 0..3."""
        return tuple(self.base * m for m in LEVEL_MULTIPLES)

    @property
    def gene_widths(self) -> tuple[int, ...]:
        """Gene-feature channels of levels 0..3."""
        return (32, 64, 128, self.genes)

    def attends(self, level: int) -> bool:
        """Whether the residual blocks of `level` are followed by image attention."""
        return self.patch >> level == ATTENTION_EDGE

    def fits_pixels(self, size_um: float | None) -> bool:
        """Whether pixels are as large as where it was trained, or one of the two is unknown."""
        trained = self.pixel_size_um
        return not (trained and size_um) or abs(trained / size_um - 1) <= PIXEL_TOLERANCE

    def differing(self, **wanted: Any) -> Iterator[tuple[str, Any, Any]]:
        """Name, own value and the wanted one of sizes that differ; several stains as a list."""
        for name, value in wanted.items():
            own = getattr(self, name)
            own = list(own) if isinstance(own, tuple) else own
            if own != value:
                yield name, own, value

    def misfits(
        self, path: str | Path, *, pixel_size_um: float | None = None, **sizes: Any
    ) -> Iterator[str]:
        """One line per wanted size that this network, read from `path`, does not have."""
        for name, own, value in self.differing(**sizes):
            yield f"network.{name}: {value}, but the checkpoint {path} has {own}"
        if not self.fits_pixels(pixel_size_um):
            yield (
                f"plane.pixel_size_um: {pixel_size_um}, but the checkpoint {path} was trained at "
                f"{self.pixel_size_um}"
            )

    def require_panel(self, panel: Sequence[str], raster: str | Path) -> None:
        """Refuse a raster whose first genes are not those that the network reads."""
        if len(panel) < self.genes:
            raise UserError(f"raster {raster}: {len(panel)} genes, the network reads {self.genes}")
        for i, (read, held) in enumerate(zip(self.panel, panel, strict=False)):
            if read != held:
                raise UserError(
                    f"raster {raster}: gene {i} is {held}, the network reads {read} there; bin the "
                    "expression with the checkpoint's panel"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready form; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NetworkSpec:
        """Build from `to_dict`'s form. Raises UserError on foreign content."""
        kinds = {f.name: _KINDS[f.type] for f in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) != set(kinds):
            raise UserError(f"network record: must hold exactly {', '.join(kinds)}")
        for name, kind in kinds.items():
            if not kind(values[name]):
                raise UserError(f"network record: {name} is {values[name]!r}")
        return cls(**values | {"stains": tuple(values["stains"]), "panel": tuple(values["panel"])})


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


_KINDS: dict[Any, Callable[[Any], bool]] = {
    "int": lambda value: type(value) is int,
    "tuple[str, ...]": _are_names,
    "float | None": is_length,
    "dict[str, Any]": lambda value: isinstance(value, dict),
    "str | None": lambda value: value is None or isinstance(value, str),
}
"""A field's type, as written above -> whether a value read from a file is of it."""


def read_spec(path: str | Path) -> NetworkSpec | None:
    """The spec in a safetensors header, without reading weights; None when it carries none.

    Raises:
        UserError: when the file is no safetensors or its record is not ours.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            record = (file.metadata() or {}).get(METADATA_KEY)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"checkpoint {path}: truncated or not a safetensors file ({error})"
        ) from None
    if record is None:
        return None
    try:
        return NetworkSpec.from_dict(json.loads(record))
    except (ValueError, RecursionError) as error:  # a UserError is the first as well
        raise UserError(
            f"checkpoint {path}: its teramind record is not readable ({error})"
        ) from None
