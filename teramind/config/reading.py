"""Reading a configuration file strictly, before its keys are looked at.

YAML can do more than a configuration needs: keys given twice overwrite silently, aliases grow a
small file beyond any memory, tags and Snakemake's templates (YTE) run code. None of these is
accepted, and nothing in the file is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from teramind.errors import UserError

_LARGEST = 1 << 20
_DEEPEST = 50
_TEMPLATE = "__use_yte__"


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a configuration file, JSON or YAML, into plain values.

    Raises:
        UserError: one line that names the file, the line in it, and what would be right.
    """
    text = _text(Path(path))
    try:
        values = _json(text)
        if values is None:
            values = _yaml(text)
    except _FaultError as fault:
        raise UserError(f"{path}: {fault}") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply for a configuration") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a configuration: must be YAML or JSON with keys at top level")
    return values


class _FaultError(Exception):
    """What is wrong, before the file is named."""


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(f"{path}: larger than {_LARGEST >> 20} MiB: not a configuration")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _json(text: str) -> Any:
    """The values of JSON; None where the text is something else."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except ValueError:
        return None


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise _FaultError(f"key {key!r} is given twice; keep one of them")
        _refuse_template(key)
        values[key] = value
    return values


def _yaml(text: str) -> Any:
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            _refuse_event(event)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:  # the reader's time grows with the square of the depth
                raise RecursionError
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        raise _FaultError(f"{_place(error.problem_mark)}not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # dates such as 2020-99-99 raise the last
        raise _FaultError(f"not YAML: {' '.join(str(error).split())}") from None


def _refuse_event(event: yaml.Event) -> None:
    if isinstance(event, yaml.AliasEvent):
        raise _FaultError(
            f"{_place(event.start_mark)}*{event.anchor} repeats another value; write the value out"
        )
    tag = getattr(event, "tag", None)
    if tag and tag != "!":
        raise _FaultError(
            f"{_place(event.start_mark)}tag {tag} is not accepted; write a plain value"
        )


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, refusing keys that are given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, mark = self.construct_object(key_node, deep=True), key_node.start_mark
            if not isinstance(key, str):
                raise _FaultError(f"{_place(mark)}key {key!r} is no text; write it in quotes")
            if key in seen:
                raise _FaultError(
                    f"{_place(mark)}key {key!r} is given again, first in line {seen[key]}; "
                    "keep one of them"
                )
            _refuse_template(key)
            seen[key] = mark.line + 1
        return super().construct_mapping(node, deep=deep)


def _refuse_template(key: str) -> None:
    if key == _TEMPLATE:
        raise _FaultError(
            f"{_TEMPLATE}: templates run code and are not accepted; write the values out"
        )


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}: " if mark else ""
