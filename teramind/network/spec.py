"""What a network is: its sizes, gene panel and physical scale. Knows nothing of torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from teramind.errors import UserError
from teramind.geometry import BIN

LEVEL_MULTIPLES = (1, 2, 4, 8)
"""Channels of level l are base times this; its patch edge is P / 2^l."""

ATTENTION_EDGE = 16
"""Image attention stands at the level whose patch edge is this many pixels, and in the middle."""

SECTION_KERNELS = {1: 1, 4: 3, 8: 5, 16: 9}
"""Expression sections of a window -> depth of the convolution that reduces them to images."""


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
        if self.patch < 32 or self.patch % 32:
            raise UserError(f"patch edge {self.patch}: must be 32, 64 or another multiple of 32")
        if self.sections not in SECTION_KERNELS:
            raise UserError(f"window of {self.sections} sections: must be 1, 4, 8 or 16")
        if not self.stains or min(self.genes, self.base, self.embed) < 1 or self.base % 2:
            raise UserError(
                f"network of {len(self.stains)} stains, {self.genes} genes, base {self.base}, "
                f"time width {self.embed}: all must be positive and base even"
            )
        if self.panel and len(self.panel) != self.genes:
            raise UserError(f"panel of {len(self.panel)} genes for a network of {self.genes}")

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

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready form; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NetworkSpec:
        """Build from `to_dict`'s form. Raises TypeError or UserError on foreign content."""
        return cls(**values | {"stains": tuple(values["stains"]), "panel": tuple(values["panel"])})
