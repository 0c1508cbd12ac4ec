"""The one exception that means: what the user gave is at fault, and this is how to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_LONGEST = 1000
_INVISIBLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
"""Characters that break or turn a line, move a terminal's cursor, show nothing or are no UTF-8."""


class UserError(ValueError):
    """A mistake in the user's files or settings.

    The message is one line that says what is wrong, where, and what would be right; several lines
    where several things are wrong. Workflow scripts print it without a traceback; any other
    exception is a defect of ours. What files bring into a line cannot break it: it is kept short,
    and characters that are no text are shown as their escapes.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(map(_one_line, lines)))


@contextmanager
def foreign(where: str) -> Iterator[None]:
    """Blame the file for whatever a library raises while it reads one.

    Args:
        where: how the line begins: the file, and what it is not.

    Raises:
        UserError: `where` and the first line of the library's reason.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        if isinstance(error, KeyError) and " " not in reason:
            reason += " is missing"
        raise UserError(f"{where}: {reason}") from error


def invisible(text: str) -> bool:
    """Whether a text holds characters that would break the line it is shown in."""
    return bool(_INVISIBLE.search(text))


def some(names: Sequence[str], most: int = 12) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _one_line(text: str) -> str:
    shown = _INVISIBLE.sub(lambda found: repr(found[0])[1:-1], text)
    half = _LONGEST // 2
    return shown if len(shown) <= _LONGEST else f"{shown[:half]} ... {shown[-half:]}"
