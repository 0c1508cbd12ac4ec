"""The processes that train one network together: who they are, and sums over all of them.

`torchrun` starts them and says by environment variables who is who. Every process computes the
gradient of its share of a step's windows; the sum of them is the gradient of the step, so all
processes take the same step and hold the same weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class Team:
    """One process of `size`; the one of rank 0 writes files."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable

    @property
    def leads(self) -> bool:
        """Whether this process writes what all have computed."""
        return self.rank == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one dtype by their sums over all processes."""
        if self.size == 1:
            return
        whole = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(whole)
        for tensor, part in zip(tensors, whole.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def hand_out(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the tensors of rank 0."""
        for tensor in tensors if self.size > 1 else ():
            dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def team(gpus: int) -> Iterator[Team]:
    """The processes that `torchrun` started, or this one alone.

    They talk over NCCL where every process has a GPU, else all compute on CPUs and talk over Gloo.

    Args:
        gpus: the job's, as `train.gpus`; 0 leaves those of the machine alone.
    """
    size, here = (int(os.environ.get(key, "1")) for key in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpus = gpus > 0 and torch.cuda.device_count() >= here
    device = torch.device("cuda", local) if on_gpus else torch.device("cpu")
    if on_gpus:
        torch.cuda.set_device(device)
    if size == 1:
        yield Team(device=device)
        return
    dist.init_process_group("nccl" if on_gpus else "gloo")
    try:
        yield Team(int(os.environ["RANK"]), size, device)
    finally:
        dist.destroy_process_group()
