"""A seeded phantom of mouse brain tissue: paired stains and molecules with known cells."""

from teramind.phantom.catalogue import PANEL
from teramind.phantom.make import Phantom, make_phantom
from teramind.phantom.write import write_phantom

__all__ = ["PANEL", "Phantom", "make_phantom", "write_phantom"]
