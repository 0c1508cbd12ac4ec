"""Make a phantom: paired images, molecules, cell labels, types and regions of made-up tissue."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to, how large, which."""
    parser.add_argument("folder", type=Path, help="folder to write into")
    parser.add_argument("--height", type=int, default=1536, help="pixels (default: %(default)s)")
    parser.add_argument("--width", type=int, default=2048, help="pixels (default: %(default)s)")
    parser.add_argument("--sections", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--pixel-size", type=float, default=0.6, help="um (default: %(default)s)")
    parser.add_argument("--spacing", type=float, default=10.0, help="um (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Make it and write it.

    Raises:
        UserError: when a size is not positive or the seed is negative.
    """
    from teramind.phantom import make_phantom, write_phantom

    phantom = make_phantom(
        height=arguments.height,
        width=arguments.width,
        sections=arguments.sections,
        pixel_size_um=arguments.pixel_size,
        section_spacing_um=arguments.spacing,
        seed=arguments.seed,
    )
    write_phantom(arguments.folder, phantom)
    print(
        f"{len(phantom.cells)} cells and {len(phantom.molecules)} molecules in {arguments.folder}"
    )
