"""Times, amounts and lengths in words, and what a length can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

DAY = 86400
MEBI, GIBI = 1 << 20, 1 << 30


def duration(seconds: float) -> str:
    """Write a wall time in the two units that matter."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 3 * DAY:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // DAY:,} days {whole % DAY // 3600:02d} h"


def size(count: float) -> str:
    """Bytes with a binary unit."""
    return _scaled(count, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def amount(count: float) -> str:
    """A number with a decimal prefix; the unit is to follow."""
    return _scaled(count, 1000, ("", "k", "M", "G", "T"))


def scale_bar(width_um: float) -> tuple[float, str]:
    """Return a bar for a picture of that width: per cent of the width, and a label.

    The longest of 1, 2, 5, 10, ... um that is no longer than a quarter of the picture.
    """
    power = 10.0 ** math.floor(math.log10(width_um / 4))
    length = max(step * power for step in (1, 2, 5) if step * power <= width_um / 4)
    label = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    return 100 * length / width_um, label


def is_length(value: Any) -> bool:
    """Whether a value that was read from a file is a length, or None where none is known."""
    return value is None or (type(value) in (int, float) and 0 < value < math.inf)


def _scaled(count: float, step: int, prefixes: Sequence[str]) -> str:
    """A count in steps of the largest prefix that leaves 1 or more, or of the last."""
    *smaller, largest = prefixes
    for prefix in smaller:
        if count < step:
            return f"{_three_digits(count)} {prefix}"
        count /= step
    return f"{_three_digits(count)} {largest}"


def _three_digits(number: float) -> str:
    """Three digits, or all before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
