"""Make a phantom: paired images, molecules, cell labels, types and regions of made-up tissue."""

from __future__ import annotations

import argparse
from pathlib import Path

from teramind.errors import UserError


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
        UserError: when the folder holds files of those names, a size is not positive or too large,
            or the seed is negative.
    """
    from teramind.phantom import make_phantom, write_phantom
    from teramind.phantom.write import FILES

    there = [path for path in (arguments.folder / name for name in FILES) if path.exists()]
    if there:
        raise UserError(f"{there[0]}: is there already and would be replaced; name another folder")
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
        f"{len(phantom.cells)} cells and {len(phantom.molecules)} molecules in {arguments.folder}: "
        f"plane {{height: {arguments.height}, width: {arguments.width}, sections: "
        f"{arguments.sections}, pixel_size_um: {arguments.pixel_size}, section_spacing_um: "
        f"{arguments.spacing}}}"
    )
