"""The processes that train together, each on a device of its own: one, unless torchrun started more."""

from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """A process among its peers. Every method but :meth:`rows` and :meth:`share` must be called by all of them.

    Attributes:
        rank: its number, from 0.
        count: of all of them.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> Self:
        """Those of torch's default group, where there is one."""
        together = dist.is_available() and dist.is_initialized()
        return cls(dist.get_rank(), dist.get_world_size()) if together else cls()

    def rows(self, batch_size: int, parts: int) -> Tensor:
        """Which rows of the batch of all processes are computed here.

        Each of the ``parts`` that follow one another is divided among all processes.

        Returns:
            (batch_size / count,) int64; its first 1 / ``parts`` are the first part, and so on.
        """
        return torch.arange(batch_size).view(parts, self.count, -1)[:, self.rank].flatten()

    def share(self, count: int) -> Tensor:
        """Which of ``count`` things are done here, int64; perhaps none."""
        return torch.arange(count).tensor_split(self.count)[self.rank]

    def any(self, flag: bool) -> bool:
        """Whether this is so in any process: a decision that all of them take alike."""
        return bool(self.largest(torch.tensor(int(flag))))

    def largest(self, value: Tensor) -> Tensor:
        """The largest of all processes' values."""
        return self._reduced(value, dist.ReduceOp.MAX)

    def sum(self, value: Tensor) -> Tensor:
        """The sum of all processes' values."""
        return self._reduced(value, dist.ReduceOp.SUM)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of all processes' values."""
        return self.sum(value) / self.count

    def gather(self, tensor: Tensor) -> Tensor:
        """What all processes have, (N, …) on the CPU with any N each, one behind the other."""
        return torch.cat(self._all(tensor))

    def agree(self, thing: Any) -> bool:
        """Whether all processes have the same."""
        return all(other == thing for other in self._all(thing))

    def wait(self) -> None:
        """Until all have come here."""
        if self.count > 1:
            dist.barrier()

    def _reduced(self, value: Tensor, operation: Any) -> Tensor:
        if self.count == 1:
            return value
        reduced = value.clone()
        dist.all_reduce(reduced, operation)
        return reduced

    def _all(self, thing: Any) -> list[Any]:
        found = [thing] * self.count
        if self.count > 1:
            dist.all_gather_object(found, thing)
        return found
