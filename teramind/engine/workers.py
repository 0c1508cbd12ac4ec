"""Batches of patches pass through the network side by side, each in a thread of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Map(Protocol):
    """What `map` does for one argument."""

    def __call__(
        self, function: Callable[[Item], Result], items: Iterable[Item], /
    ) -> Iterable[Result]:
        """Results of `function`, in the order of `items`."""


@contextmanager
def side_by_side(threads: int) -> Iterator[Map]:
    """A `map` whose calls run in threads, in each of which, and in this one, torch works alone.

    What torch does with a few patches are many operations, each too small to be shared out well,
    and where other processes want the cores, too, their threads wait for each other every time.

    Args:
        threads: how many, as many as torch has in this thread; with one it is `map` itself.
    """
    if threads == 1:
        yield map
        return
    try:
        torch.set_num_threads(1)  # new threads take it over
        yield lambda function, items: _pool(threads).map(torch.inference_mode()(function), items)
    finally:
        torch.set_num_threads(threads)


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that stay, for torch makes its kernels ready in every new one."""
    return ThreadPoolExecutor(threads, "patches")
