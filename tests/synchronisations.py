"""Count the operations that make the host wait for a GPU."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class BlockingCopies(TorchDispatchMode):
    """Count copies from the CPU to another device for which the host waits."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu":
            there = torch.device(kwargs.get("device") or "cpu").type != "cpu"
            self.count += there and not kwargs.get("non_blocking")
        return func(*args, **kwargs)


class Synchronisations(TorchDispatchMode):
    """Count how often a value is read from a tensor: on a GPU, each read makes the host wait."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))
