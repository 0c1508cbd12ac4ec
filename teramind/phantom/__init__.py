"""A seeded phantom of mouse brain: images, molecules, cell labels, types and regions that agree.

Ground truth for segmentation, cell typing, registration or generation:

    phantom = make_phantom(height=1536, width=2048, sections=4, seed=1)
    phantom.images, phantom.nuclei      # stains (c, z, y, x); the cell at each pixel (z, y, x)
    phantom.molecules, phantom.cells    # tables; positions in um
    write_phantom("phantom", phantom)   # the same as files

`python -m teramind phantom FOLDER` does so from the shell.
"""

from teramind.phantom.catalogue import PANEL
from teramind.phantom.make import Phantom, make_phantom
from teramind.phantom.write import write_phantom

__all__ = ["PANEL", "Phantom", "make_phantom", "write_phantom"]
