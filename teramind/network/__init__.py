"""The denoising network: architecture, checkpoints and the published weights' names.

Names are imported when first used, so that reading a spec needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teramind.network.checkpoint import load_network, save_network
    from teramind.network.spec import NetworkSpec, read_spec
    from teramind.network.unet import Network

__all__ = ["Network", "NetworkSpec", "load_network", "read_spec", "save_network"]

_HOMES = {
    "Network": "unet",
    "NetworkSpec": "spec",
    "load_network": "checkpoint",
    "read_spec": "spec",
    "save_network": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
