"""Making the next thing while the caller still works with the last one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """Calls a function of the step in a thread of its own, one step ahead of the caller.

    Reading windows and computing with the ones before then go on side by side.
    """

    def __init__(self, make: Callable[[int], Made]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[Made]] | None = None

    def __call__(self, step: int) -> Made:
        """What `make(step)` returns."""
        if self._next and self._next[0] == step:
            future = self._next[1]
        else:
            future = self._thread.submit(self._make, step)
        made = future.result()
        self._next = step + 1, self._thread.submit(self._make, step + 1)
        return made
