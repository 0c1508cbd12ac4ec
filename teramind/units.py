"""Times and amounts in words."""

from __future__ import annotations

DAY = 86400


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
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{_three_digits(count)} {unit}"
        count /= 1024
    return f"{_three_digits(count)} TiB"


def _three_digits(number: float) -> str:
    """Three digits, or all before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
