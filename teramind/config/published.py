"""Published files by name: `published:638850` for a brain, `published:main` for a network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, StringConstraints

from teramind.config.expression import Expression
from teramind.config.generation import NetworkSection
from teramind.config.values import StrictModel

PREFIX = "published:"

BRAINS = {mouse: f"gene_{mouse}.zip" for mouse in ("638850", "609882", "609889")}
"""Name in `expression.source` -> archive of expression tiles."""

NETWORKS = {name: f"{name}.zip" for name in ("main", "supp_m", "supp_f")}
"""Name in `network.checkpoint` -> archive that holds a checkpoint."""

_Sum = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Download(StrictModel):
    """Where published files come from and where they are kept."""

    folder: str = Field(default="downloads", min_length=1, description="where they are kept")
    url: str = Field(
        default="https://zenodo.org/records/14745019/files",
        pattern="^https?://",
        description="folder on a server that has them: the Zenodo record or a mirror",
    )
    sha256: dict[str, _Sum] = Field(
        default={}, description="file name -> its sum; else the one recorded when it was first seen"
    )


def archive_of(value: str, names: dict[str, str]) -> str | None:
    """The archive that a `published:...` value names; None for anything else."""
    return names.get(value.removeprefix(PREFIX)) if value.startswith(PREFIX) else None


def published_conflicts(
    expression: Expression, network: NetworkSection, download: Download
) -> Iterator[str]:
    """What is wrong with `published:` names and the sums of archives, one line each."""
    for key, value, names in (
        ("expression.source", expression.source, BRAINS),
        ("network.checkpoint", network.checkpoint, NETWORKS),
    ):
        if value.startswith(PREFIX) and archive_of(value, names) is None:
            yield f"{key}: got {value!r}; must be {', '.join(map(repr, names))} behind {PREFIX!r}"
    archives = [*BRAINS.values(), *NETWORKS.values()]
    for name in download.sha256:
        if name not in archives:
            yield f"download.sha256: got {name!r}; must be one of {', '.join(archives)}"
    kind = getattr(expression, "kind", "tiles")
    if archive_of(expression.source, BRAINS) and kind != "tiles":
        yield f"expression.kind: got {kind!r}; must be 'tiles' for {expression.source}"
