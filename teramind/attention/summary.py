"""What is said of every pathway over all sections: limits of its pictures, and regressions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from teramind.attention.joint import read_joint
from teramind.attention.joint_picture import draw_joint
from teramind.attention.pictures import display_limits
from teramind.attention.volumes import volume_path


def summarise(folder: Path, pictures: Mapping[str, Path], network_genes: int) -> dict[str, Any]:
    """Hold expression against attention, pathway by pathway, and draw it.

    Args:
        folder: of the pathways' volumes.
        pictures: file to draw of each pathway.
        network_genes: genes that the network reads.

    Returns:
        The summary, ready for JSON.
    """
    found = {name: _pathway(folder, name, path, network_genes) for name, path in pictures.items()}
    return {"network_genes": network_genes, "pathways": found}


def _pathway(folder: Path, name: str, picture: Path, network_genes: int) -> dict[str, Any]:
    volume = volume_path(folder, name)
    joint = read_joint(volume, network_genes)
    regressions = joint.regressions()
    draw_joint(joint, regressions, picture, title=name)
    return {"limits": display_limits(volume, network_genes), "regressions": regressions}
