"""teramind: virtual brain volumes from spatial gene expression.

The names below are the public interface for notebooks; heavy libraries load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teramind.attention.matrices import gene_attention as gene_attention
    from teramind.engine.region import generate_region as generate_region
    from teramind.expression.tiles import import_tiles as import_tiles
    from teramind.network.checkpoint import load_network as load_network

__version__ = "0.1.0"

_HOMES = {
    "gene_attention": "teramind.attention.matrices",
    "generate_region": "teramind.engine.region",
    "import_tiles": "teramind.expression.tiles",
    "load_network": "teramind.network.checkpoint",
}

__all__ = ["__version__", "gene_attention", "generate_region", "import_tiles", "load_network"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'teramind' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
