"""Slab states between phases: one checked file per slab and phase.

The file is a safetensors file, written here because the library would need all of it in memory: a
header that says where each part lies, and the parts, window by window.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from teramind.config.values import StoredType
from teramind.errors import UserError
from teramind.files import atomic_path, digest
from teramind.geometry import EMPTY, Rect

_RECORD = "teramind"
_TYPES = {"float32": "F32", "float16": "F16"}
_ALIGNMENT = 8


def save_states(
    path: str | Path,
    states: Iterable[NDArray[np.floating]],
    *,
    windows: range,
    rect: Rect,
    identity: Mapping[str, str],
    dtype: StoredType = "float32",
    margin: int = 0,
) -> None:
    """Write the states (stain z, y, x) of a slab's windows, atomically, with checksums.

    Args:
        path: safetensors file to make.
        states: one per window, asked for one by one; may hold NaN where no patch is needed.
        windows: the slab's z-windows.
        rect: its pixels.
        identity: slab, phase and run it belongs to.
        dtype: float16 halves the file and moves the result by up to its rounding.
        margin: pixels along the edges that neighbours read; stored as parts of their own, so
            that a neighbour need not read the rest.
    """
    places, waiting = parts_of(rect, margin), iter(states)
    names = [_name(window, place) for window in windows for place in places]
    sums = dict.fromkeys(names, digest(b""))  # as long as the ones to come

    def header(channels: int) -> bytes:
        shapes = [(channels, place.height, place.width) for _ in windows for place in places]
        record = {**identity, "rect": list(rect), "margin": margin, "blake2b": sums}
        return _header(dict(zip(names, shapes, strict=True)), dtype, _sealed(record))

    with atomic_path(path) as temporary, temporary.open("w+b") as file:
        for window in windows:
            state = next(waiting)
            if window == windows[0]:
                file.write(header(len(state)))
            for place in places:
                part = np.ascontiguousarray(state[:, *place.within(rect)], dtype=dtype)
                sums[_name(window, place)] = digest(part.data)
                file.write(part.data)
            channels = len(state)
            del state  # before the next one is made
        file.seek(0)
        file.write(header(channels))


def _header(
    shapes: Mapping[str, tuple[int, ...]], dtype: StoredType, record: Mapping[str, Any]
) -> bytes:
    """The head of a safetensors file whose tensors follow each other in the order given."""
    said: dict[str, Any] = {"__metadata__": {_RECORD: json.dumps(record)}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + int(np.prod(shape)) * np.dtype(dtype).itemsize
        said[name] = {"dtype": _TYPES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(said).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def load_parts(
    path: str | Path, *, window: int, identity: Mapping[str, str], near: Rect | None = None
) -> list[tuple[Rect, NDArray[np.float32]]]:
    """Read the parts of a window's state that touch `near`, or all, each with its pixels.

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
            sums = record["blake2b"]
            return [(part, _read(file, _name(window, part), part, sums)) for part in read]
    except _ForeignError as error:
        raise UserError(f"state {path}: belongs to {error}; remove it and run again") from None
    except Exception as error:  # of a library, about a file that was damaged
        raise UserError(f"state {path}: damaged ({error}); remove it and run again") from None


def load_state(
    path: str | Path, *, window: int, identity: Mapping[str, str]
) -> tuple[Rect, NDArray[np.float32]]:
    """Read a window's whole state and its rectangle. Raises UserError as `load_parts` does."""
    parts = load_parts(path, window=window, identity=identity)
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


def _name(window: int, part: Rect) -> str:
    return "_".join(map(str, (window, *part)))


def _sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the digest of all else that it says."""
    said = {key: value for key, value in record.items() if key != "record"}
    return {**said, "record": digest(json.dumps(said, sort_keys=True).encode())}


def _read(file: Any, name: str, part: Rect, sums: Mapping[str, str]) -> NDArray[np.float32]:
    stored: NDArray[np.floating] = file.get_tensor(name)
    if stored.shape[1:] != (part.height, part.width) or sums[name] != digest(stored.data):
        raise ValueError("checksum differs")
    return stored.astype(np.float32, copy=False)


def to_grey(state: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Images in [-1, 1] -> grey levels 0..255, cut off as the published code does; 0 where NaN."""
    return np.nan_to_num(np.clip((state + 1) * 127.5, 0, 255), copy=False).astype(np.uint8)


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
