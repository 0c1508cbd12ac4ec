"""A results folder belongs to the settings that it was made with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from teramind.config.whole import Config
from teramind.errors import UserError


def differences(made: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """One line per key in which two identities differ."""
    keys = [*asked, *(key for key in made if key not in asked)]
    return [
        f"{key} was {made.get(key)!r}, is now {asked.get(key)!r}"
        for key in keys
        if made.get(key) != asked.get(key)
    ]


def refuse_other_results(config: Config, provenance: Path) -> None:
    """Stop when the results folder was made with other settings.

    Raises:
        UserError: naming every key that differs.
    """
    if not provenance.is_file():
        return
    try:
        made = json.loads(provenance.read_text(encoding="utf-8"))["identity"]
        found = differences(made, json.loads(json.dumps(config.identity())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{provenance}: not readable; remove it or the results folder") from None
    if found:
        raise UserError(
            f"{config.results}: made with other settings ({'; '.join(found)}); "
            "name another `results` folder or remove this one"
        )
