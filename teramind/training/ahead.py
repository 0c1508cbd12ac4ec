"""Cutting windows in processes of their own, while a GPU computes with the ones before."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Generator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from teramind.errors import UserError
from teramind.training.dataset import Batch


class Steps(Dataset[list[Batch] | UserError]):
    """What `cut` returns for a step, the pieces of its windows, as torch's loader wants it.

    A mistake of the user's is returned: of what is raised the loader makes a text with a traceback.
    """

    def __init__(self, cut: Callable[[int], list[Batch]]) -> None:
        self._cut = cut

    def __getitem__(self, step: int) -> list[Batch] | UserError:
        """What the function returns, or the mistake that it raises."""
        try:
            return self._cut(step)
        except UserError as error:
            return error


def cut_ahead(
    cut: Callable[[int], list[Batch]], steps: range, workers: int
) -> Generator[list[Batch]]:
    """What `cut` returns for each of `steps`, in their order, made before it is asked for.

    The processes end when the iterator is closed or fails.

    Raises:
        UserError: as `cut`.
    """
    loader: DataLoader[Any] = DataLoader(
        Steps(cut),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_the_trainer,
        pin_memory=torch.cuda.is_available(),
    )
    try:
        for pieces in loader:
            if isinstance(pieces, UserError):
                raise pieces
            yield pieces
    except Exception as error:
        # The traceback would keep the loader, and so its processes, beyond the training's end.
        traceback.clear_frames(error.__traceback__)
        raise


def _leave_signals_to_the_trainer(worker: int) -> None:
    """A SIGTERM reaches the whole job; its trainer still needs the windows of a last step."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
