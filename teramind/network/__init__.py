"""The denoising network: architecture, checkpoints and the published weights' names."""

from teramind.network.checkpoint import load_network, save_network
from teramind.network.spec import NetworkSpec
from teramind.network.unet import Network

__all__ = ["Network", "NetworkSpec", "load_network", "save_network"]
