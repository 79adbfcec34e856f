"""Profile our step: time by cause, and each shape of a convolution separately."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from benchmarks.gpu.parts.step import OURS
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.steps import native_precision, prepared_step
from benchmarks.training.networks import our_parameters
from benchmarks.training.operations import CONVOLUTIONS, PRODUCTS, SPENT, profiled
from benchmarks.training.results import Row
from benchmarks.training.step import CANDIDATES, DTYPES, as_in_a_run
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from ddpm_kedro.models import UNet

COPY = "aten::copy_"
ABOVE_A_COPY = (
    ("layout copies", ("aten::clone", "aten::contiguous", "convolution", "group_norm")),
    ("casts", ("aten::_to_copy",)),
)
"""The cause of a copy, by a part of the name of an operation that contains it."""
CAUSES = (
    ("optimizer, clip and EMA", ("Optimizer.", "_fused_adam", "_foreach_")),
    ("convolutions, backward", ("aten::convolution_backward",)),
    ("convolutions, forward", tuple(CONVOLUTIONS)),
    ("attention", ("attention",)),
    ("matrix products", tuple(PRODUCTS)),
    ("GroupNorm", ("group_norm",)),
    ("SiLU", ("silu",)),
    ("sums", ("aten::sum", "aten::mean")),
)
"""The cause of any other operation, by a part of its name."""


def measure(settings: Settings) -> Iterator[Row]:
    """Yield a row per cause, then a row per shape and pass of the convolutions."""
    as_in_a_run(settings.device)
    _, step = prepared_step(CANDIDATES[OURS], native_precision(settings), settings.sizes.compared, settings)
    for _ in range(settings.sizes.warmup):
        step()
    yield from causes(profiled(step, settings.device).events(), settings.device)
    yield from convolutions(settings)


def causes(events: Any, device: str) -> list[Row]:
    """Return calls and milliseconds of every cause, the longest first."""
    calls, spent = defaultdict[str, int](int), defaultdict[str, float](float)
    for event in events:
        microseconds = SPENT[device](event)
        if event.name.startswith("aten::") and microseconds:
            cause = cause_of([event.name, *_names_above(event)])
            calls[cause] += 1
            spent[cause] += microseconds / 1e3
    total = sum(spent.values())
    rows = [{"cause": cause, "calls": calls[cause], "ms": ms, "share": ms / total} for cause, ms in spent.items()]
    return sorted(rows, key=lambda row: -row["ms"])


def _names_above(event: Any) -> Iterator[str]:
    while (event := event.cpu_parent) is not None:
        yield event.name


def cause_of(names: list[str]) -> str:
    """Return the cause of an operation, given its name and the names of the operations that contain it."""
    if names[0] == COPY:
        found = _first(ABOVE_A_COPY, names[1:])
        return found or "other copies"
    return _first(CAUSES[:1], names) or _first(CAUSES[1:], names[:1]) or "other elementwise operations"


def _first(table: tuple[tuple[str, tuple[str, ...]], ...], names: list[str]) -> str | None:
    return next((cause for cause, parts in table if any(part in name for name in names for part in parts)), None)


class Convolution(NamedTuple):
    """The shape of a convolution."""

    channels_in: int
    channels_out: int
    kernel: int
    stride: int
    padding: int
    size: int

    def __str__(self) -> str:
        stride = f", stride {self.stride}" if self.stride != 1 else ""
        kind = f"{self.kernel}×{self.kernel}{stride}"
        return f"{self.channels_in} → {self.channels_out}, {kind}, at {self.size}×{self.size}"


def shapes_of(settings: Settings) -> dict[Convolution, int]:
    """Return the shapes of the convolutions of our network, each with how often a step uses it."""
    shape = settings.sizes.shape
    with torch.device("meta"):
        network = UNet(our_parameters(shape), shape.channels)
    counted: dict[Convolution, int] = {}

    def count(module: nn.Module, given: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        (kernel, _), (stride, _), padding = module.kernel_size, module.stride, int(module.padding[0])
        found = Convolution(module.in_channels, module.out_channels, kernel, stride, padding, given[0].shape[-1])
        counted[found] = counted.get(found, 0) + 1

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    x = torch.empty(1, shape.channels, shape.size, shape.size, device="meta")
    network(x, torch.zeros(1, dtype=torch.long, device="meta"))
    return counted


def convolutions(settings: Settings) -> Iterator[Row]:
    """Yield milliseconds and TFLOP/s of every shape and pass, with ``cudnn.benchmark`` off and on."""
    modes = (False, True) if settings.device == "cuda" else (False,)
    for shape, uses in shapes_of(settings).items():
        for benchmark, (name, run, flops) in itertools.product(modes, passes(shape, settings)):
            with torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, allow_tf32=True):
                timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
                seconds = timer.blocked_autorange(min_run_time=settings.sizes.convolution_seconds).median
            yield {
                "convolution": str(shape),
                "uses": uses,
                "pass": name,
                "cudnn_benchmark": benchmark,
                "ms": seconds * 1e3,
                "teraflops": flops / seconds / 1e12,
            }


def passes(shape: Convolution, settings: Settings) -> list[tuple[str, Callable[[], Any], float]]:
    """Return the three passes of a convolution with their floating-point operations."""
    options: Any = {"device": settings.device, "dtype": DTYPES[native_precision(settings)]}
    n = settings.sizes.compared
    x = torch.randn(n, shape.channels_in, shape.size, shape.size, **options)
    weight = torch.randn(shape.channels_out, shape.channels_in, shape.kernel, shape.kernel, **options)
    x, weight = (tensor.to(memory_format=torch.channels_last) for tensor in (x, weight))
    stride, padding, dilation = [shape.stride] * 2, [shape.padding] * 2, [1, 1]
    forward = partial(torch.ops.aten.convolution, x, weight, None, stride, padding, dilation, False, [0, 0], 1)
    grad = torch.randn_like(output := forward())
    arguments = grad, x, weight, None, stride, padding, dilation, False, [0, 0], 1
    flops = 2.0 * output.numel() * shape.channels_in * shape.kernel**2
    backward = partial(torch.ops.aten.convolution_backward, *arguments)
    return [
        ("forward", forward, flops),
        ("gradient of the input", partial(backward, [True, False, False]), flops),
        ("gradient of the weight", partial(backward, [False, True, False]), flops),
    ]
