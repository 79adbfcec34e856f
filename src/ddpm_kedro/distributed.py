"""The processes of distributed training, one per device; a single one, unless torchrun started more."""

from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """A process among its peers. All processes must call every method except :meth:`rows` and :meth:`share`.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Self:
        """Return the world of torch's default process group, if there is one."""
        distributed = dist.is_available() and dist.is_initialized()
        return cls(dist.get_rank(), dist.get_world_size()) if distributed else cls()

    def rows(self, batch_size: int, parts: int) -> Tensor:
        """Return the rows of the global batch that this process computes.

        The batch is a sequence of ``parts``; each part is divided among all processes.

        Returns:
            (batch_size / size,) int64; its first 1 / ``parts`` are rows of the first part, and so on.
        """
        return torch.arange(batch_size).view(parts, self.size, -1)[:, self.rank].flatten()

    def share(self, count: int) -> Tensor:
        """Return the indices below ``count`` that this process handles, int64; may be empty."""
        return torch.arange(count).tensor_split(self.size)[self.rank]

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; all processes get the same answer."""
        return bool(self.max(torch.tensor(int(flag))))

    def max(self, value: Tensor) -> Tensor:
        """Return the largest value of all processes."""
        return self._reduce(value, dist.ReduceOp.MAX)

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over all processes."""
        return self._reduce(value, dist.ReduceOp.SUM)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over all processes."""
        return self.sum(value) / self.size

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenate the tensors of all processes, (N, …) on the CPU; N may differ."""
        return torch.cat(self._gather_objects(tensor))

    def all_equal(self, value: Any) -> bool:
        """Return whether all processes have the same value."""
        return all(other == value for other in self._gather_objects(value))

    def from_rank_0(self, value: Any) -> Any:
        """Return the value of rank 0, in all processes."""
        return self._gather_objects(value)[0]

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def _reduce(self, value: Tensor, operation: Any) -> Tensor:
        if self.size == 1:
            return value
        reduced = value.clone()
        dist.all_reduce(reduced, operation)
        return reduced

    def _gather_objects(self, value: Any) -> list[Any]:
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values
