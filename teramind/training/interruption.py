"""When a long job should save and end: asked to by SIGTERM, or out of its time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Says whether the job has been asked to end, and whether its time is over."""

    def __init__(self, minutes: float | None) -> None:
        self.asked = False
        self._end = time.monotonic() + 60 * minutes if minutes else None

    @property
    def due(self) -> bool:
        """Whether to save and end now."""
        return self.asked or (self._end is not None and time.monotonic() >= self._end)

    def ask(self, signal_number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        self.asked = True


@contextmanager
def interruption(minutes: float | None) -> Iterator[Interruption]:
    """Listen to SIGTERM, which schedulers send some time before they kill.

    Args:
        minutes: the job's time from now; None for no limit.
    """
    found = Interruption(minutes)
    if threading.current_thread() is not threading.main_thread():
        yield found  # Python lets only the main thread listen to signals
        return
    before = signal.signal(signal.SIGTERM, found.ask)
    try:
        yield found
    finally:
        signal.signal(signal.SIGTERM, before)
