"""Slab states between phases: one checked file per slab and phase."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from teramind.errors import UserError
from teramind.files import atomic_path, digest
from teramind.geometry import EMPTY, Rect

StateType = Literal["float32", "float16"]

_RECORD = "teramind"


def save_state(
    path: str | Path,
    state: NDArray[np.floating],
    *,
    rect: Rect,
    identity: Mapping[str, str],
    dtype: StateType = "float32",
    margin: int = 0,
) -> None:
    """Write the state (stain z, y, x) of `rect`, atomically, with checksums.

    Args:
        path: safetensors file to make.
        state: may hold NaN where no patch is needed.
        rect: its pixels.
        identity: slab, phase and run it belongs to.
        dtype: float16 halves the file and moves the result by up to its rounding.
        margin: pixels along the edges that neighbours read; stored as parts of their own, so
            that a neighbour need not read the rest.
    """
    parts = {
        _name(part): np.ascontiguousarray(state[:, *part.within(rect)], dtype=dtype)
        for part in parts_of(rect, margin)
    }
    sums = {name: digest(part.data) for name, part in parts.items()}
    record = {**identity, "rect": list(rect), "margin": margin, "blake2b": sums}
    with atomic_path(path) as temporary:
        # Not `save_file`, whose error on a full disk is no OSError.
        temporary.write_bytes(save(parts, metadata={_RECORD: json.dumps(_sealed(record))}))


def load_parts(
    path: str | Path, *, identity: Mapping[str, str], near: Rect | None = None
) -> list[tuple[Rect, NDArray[np.float32]]]:
    """Read the parts of a state that touch `near`, or all, each with its pixels.

    Raises:
        UserError: when the file is damaged or belongs to another slab, phase or run. Damage of a
            part that is not read goes unnoticed.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            record = dict(json.loads((file.metadata() or {})[_RECORD]))
            rect = Rect(*map(int, record["rect"]))
            wrong = [
                f"{k} {record.get(k)}, not {v}" for k, v in identity.items() if record.get(k) != v
            ]
            if wrong:
                raise _ForeignError("; ".join(wrong))
            if _sealed(record) != record or min(rect.height, rect.width) < 1:
                raise ValueError("checksum differs")
            read = [
                part
                for part in parts_of(rect, record["margin"])
                if near is None or part.cut(near) != EMPTY
            ]
            return [(part, _checked(file.get_tensor(_name(part)), part, record)) for part in read]
    except _ForeignError as error:
        raise UserError(f"state {path}: belongs to {error}; remove it and run again") from None
    except Exception as error:  # of a library, about a file that was damaged
        raise UserError(f"state {path}: damaged ({error}); remove it and run again") from None


def load_state(
    path: str | Path, *, identity: Mapping[str, str]
) -> tuple[Rect, NDArray[np.float32]]:
    """Read a whole state and its rectangle. Raises UserError as `load_parts` does."""
    parts = load_parts(path, identity=identity)
    (first, _), (last, _) = parts[0], parts[-1]
    rect = Rect(first.y, first.x, last.bottom - first.y, last.right - first.x)
    return rect, SavedStates(parts)(rect)


def parts_of(rect: Rect, margin: int) -> list[Rect]:
    """Cut a rectangle `margin` pixels inside its edges, row by row from its top left corner."""
    rows, cols = (
        sorted({0, min(margin, size), max(size - margin, 0), size})
        for size in (rect.height, rect.width)
    )
    return [
        Rect(rect.y + top, rect.x + left, bottom - top, right - left)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(cols)
    ]


class _ForeignError(Exception):
    """A sound file that belongs elsewhere."""


def _name(part: Rect) -> str:
    return "_".join(map(str, part))


def _sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the digest of all else that it says."""
    said = {key: value for key, value in record.items() if key != "record"}
    return {**said, "record": digest(json.dumps(said, sort_keys=True).encode())}


def _checked(
    stored: NDArray[np.floating], part: Rect, record: Mapping[str, Any]
) -> NDArray[np.float32]:
    shape = (len(stored), part.height, part.width)
    if stored.shape != shape or record["blake2b"][_name(part)] != digest(stored.data):
        raise ValueError("checksum differs")
    return stored.astype(np.float32, copy=False)


class SavedStates:
    """States of neighbouring slabs read as one plane; what no slab holds is NaN."""

    def __init__(self, states: Sequence[tuple[Rect, NDArray[np.floating]]]) -> None:
        self.states = states

    def __call__(self, rect: Rect) -> NDArray[np.floating]:
        """State (stain z, y, x) of `rect`."""
        first = self.states[0][1]
        out = np.full((first.shape[0], rect.height, rect.width), np.nan, first.dtype)
        for place, state in self.states:
            shared = place.cut(rect)
            out[:, *shared.within(rect)] = state[:, *shared.within(place)]
        return out
