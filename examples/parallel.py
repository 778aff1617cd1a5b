"""Train in several processes as in one: under torchrun each takes its part of every batch; alone, nothing changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import NamedTuple

from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


class Team(NamedTuple):
    """The processes that train together, and which of them this one is.

    All draw the same random numbers for the whole batch, and each goes on with its part. A loss that is a mean over
    samples then has, averaged over the processes, the gradient that one process has from the whole batch.
    """

    rank: int = 0
    size: int = 1

    def part(self, batch: Tensor, dim: int = 0) -> Tensor:
        """Return this process's part of a batch whose samples lie along `dim`."""
        if batch.shape[dim] % self.size:
            raise ValueError(f"batch: expected a multiple of {self.size} processes, got {batch.shape[dim]} samples")
        return batch.chunk(self.size, dim)[self.rank]

    def share(self, module: nn.Module) -> nn.Module:
        """Return a module with the same parameters whose gradients are averaged over the processes."""
        return module if self.size == 1 else DistributedDataParallel(module, broadcast_buffers=False)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over the processes."""
        value = value.detach().clone()
        if self.size > 1:
            distributed.all_reduce(value)
        return value / self.size


@contextmanager
def join_team() -> Iterator[Team]:
    """Join the processes that torchrun started, or be alone. Only the first prints."""
    team = Team(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    if team.size == 1:
        yield team
        return
    distributed.init_process_group("gloo")
    try:
        with redirect_stdout(None) if team.rank else nullcontext():
            yield team
    finally:
        distributed.destroy_process_group()
