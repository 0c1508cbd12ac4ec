"""Slab states between phases: one checked file per slab and phase."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from teramind.errors import UserError
from teramind.files import atomic_path, digest
from teramind.geometry import Rect

StateType = Literal["float32", "float16"]

_TENSOR = "state"
_RECORD = "teramind"


def save_state(
    path: str | Path,
    state: NDArray[np.floating],
    *,
    rect: Rect,
    identity: Mapping[str, str],
    dtype: StateType = "float32",
) -> None:
    """Write the state (stain z, y, x) of `rect`, atomically, with a checksum.

    Args:
        path: safetensors file to make.
        state: may hold NaN where no patch is needed.
        rect: its pixels.
        identity: slab, phase and run it belongs to.
        dtype: float16 halves the file and moves the result by up to its rounding.
    """
    stored = np.ascontiguousarray(state, dtype=dtype)
    record = {**identity, "rect": list(rect), "blake2b": _checksum(stored, rect, identity)}
    with atomic_path(path) as temporary:
        # Not `save_file`, whose error on a full disk is no OSError.
        temporary.write_bytes(save({_TENSOR: stored}, metadata={_RECORD: json.dumps(record)}))


def load_state(
    path: str | Path, *, identity: Mapping[str, str]
) -> tuple[Rect, NDArray[np.float32]]:
    """Read a state and its rectangle.

    Raises:
        UserError: when the file is damaged or belongs to another slab, phase or run.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            stored = file.get_tensor(_TENSOR)
            record = dict(json.loads((file.metadata() or {})[_RECORD]))
            rect = Rect(*map(int, record["rect"]))
    except Exception as error:  # of a library, about a file that was damaged
        raise UserError(f"state {path}: damaged ({error}); remove it and run again") from None
    wrong = [f"{k} {record.get(k)}, not {v}" for k, v in identity.items() if record.get(k) != v]
    if wrong:
        raise UserError(f"state {path}: belongs to {'; '.join(wrong)}; remove it and run again")
    if stored.ndim != 3 or stored.shape[1:] != rect[2:]:
        raise UserError(
            f"state {path}: damaged ({stored.shape} values for {rect.height} x {rect.width} "
            "pixels); remove it and run again"
        )
    if record.get("blake2b") != _checksum(stored, rect, identity):
        raise UserError(f"state {path}: damaged (checksum differs); remove it and run again")
    return rect, stored.astype(np.float32)


def _checksum(stored: NDArray[np.floating], rect: Rect, identity: Mapping[str, str]) -> str:
    header = json.dumps([sorted(identity.items()), list(rect), str(stored.dtype), stored.shape])
    return digest(header.encode() + stored.tobytes())


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
