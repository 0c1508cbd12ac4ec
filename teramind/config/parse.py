"""From plain values to a checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from teramind.config.problems import problem
from teramind.config.whole import Config
from teramind.errors import UserError


def parse_config(values: Mapping[str, Any]) -> Config:
    """Validate a configuration.

    Raises:
        UserError: with one line per problem, each naming the key, what it got and what may be.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        kinds = ("molecules", "cells", "tiles")
        errors = error.errors(include_url=False)
        # pydantic finds a list too short whose entries are at fault
        inner = {e["loc"][:depth] for e in errors for depth in range(len(e["loc"]))}
        found = (problem(e, Config, kinds) for e in errors if not e["loc"] or e["loc"] not in inner)
        raise UserError(*(line for lines in found for line in lines.split("\n"))) from None
