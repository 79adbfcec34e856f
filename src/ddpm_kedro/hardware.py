"""The device and the precision of a computation."""

import ctypes
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ddpm_kedro.errors import UserError
from ddpm_kedro.parameters import Device, Precision

OLDEST_DRIVER = {12: 525, 13: 580}
"""The first driver for each major version of CUDA; a minor version runs on any driver of its major version."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h
CONTROL_GROUPS = (  # kind in /proc/self/cgroup, mount, files of the limit and the use, row of the reclaimable cache
    ("", "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")),
    ("memory", "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Hardware:
    """A device, a precision, and the reason for the choice."""

    device: torch.device
    precision: str
    reason: str

    @property
    def autocast(self) -> Callable[[], AbstractContextManager[object]]:
        """Return a function that makes the context in which the network runs; weights stay in float32."""
        if self.precision == "fp32":
            return nullcontext
        return partial(torch.autocast, self.device.type, dtype=DTYPES[self.precision])

    @property
    def memory_format(self) -> torch.memory_format:
        """Return the memory format of images in training: channels last, unless that is slower.

        In bfloat16 on a CPU it slows the backward pass of GroupNorm more than it speeds up convolutions.
        """
        slow = self.device.type == "cpu" and self.precision == "bf16"
        return torch.contiguous_format if slow else torch.channels_last

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Return a scaler of the loss that keeps fp16 gradients from vanishing; it does nothing in other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")


def choose_hardware(device: Device, precision: Precision) -> Hardware:
    """Return the requested device and precision; "auto" is the best that this machine supports natively.

    Raises:
        UserError: if this machine does not have the device.
    """
    available = [name for name, is_available in AVAILABLE.items() if is_available()]
    if device != "auto" and device not in available:
        cause = f" {gpu_problem()}" if device == "cuda" else ""
        raise UserError(f"device = {device} is not available here; this machine has: {', '.join(available)}.{cause}")
    chosen = available[0] if device == "auto" else device
    native = NATIVE_BF16[chosen]()
    if precision != "auto":
        reason = "emulated here, slow" if precision == "bf16" and not native else "as requested"
        return Hardware(torch.device(chosen), precision, f"{chosen}, {precision} ({reason})")
    best = "bf16" if native else "fp32"
    reason = "bfloat16 is native here" if native else "no native bfloat16 here"
    return Hardware(torch.device(chosen), best, f"{chosen}, {best} ({reason})")


def keep_freed_memory() -> None:
    """Make glibc, if it is the allocator, keep freed memory for the next step.

    Otherwise it returns large blocks to the kernel at once, and the kernel clears the same pages at every step.
    """
    if sys.platform == "linux" and hasattr(allocator := ctypes.CDLL(None), "mallopt"):
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            allocator.mallopt(option, 2**31 - 1)


def available_memory(device: torch.device) -> int | None:
    """Return the bytes of a device that this process can still use; None if that is unknown.

    On a CPU, limits of control groups (containers, SLURM) count, and the processes of torchrun share the memory.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    host = host_memory()
    return None if host is None else host // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def host_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that Linux, and every control group of this process, have left; None elsewhere.

    ``root`` is the folder that contains ``proc`` and ``sys``.
    """
    try:
        free = [1024 * _numbers(root / "proc/meminfo")["MemAvailable:"]]
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, KeyError):
        return None
    for version, mount, names in CONTROL_GROUPS:
        paths = [path for _, kind, path in (group.split(":", 2) for group in groups) if kind == version]
        for path in (Path(paths[0]), *Path(paths[0]).parents) if paths else ():
            limit, usage, cache = names
            try:  # a container sees its own group as the mounted one, below another path
                folder = root / mount / path.relative_to("/")
                used = int((folder / usage).read_text()) - _numbers(folder / "memory.stat")[cache]
                free.append(int((folder / limit).read_text()) - used)
            except (OSError, KeyError, ValueError):  # no such group, or "max"
                continue
    return max(min(free), 0)


def _numbers(file: Path) -> dict[str, int]:
    """Return the second word of each line by the first."""
    return {words[0]: int(words[1]) for words in map(str.split, file.read_text().splitlines()) if len(words) > 1}


def gpu_problem() -> str:
    """Return the most likely reason why CUDA cannot be used here, and what to do, in one line."""
    if torch.version.cuda is None:
        return "No GPU is used: torch was installed without CUDA."
    driver, needed = cuda_of_driver(), int(torch.version.cuda.split(".")[0])
    if driver is None and os.environ.get("container"):  # noqa: SIM112  systemd's name for it
        return (
            "No GPU is visible: start the container with --gpus all, on a host that has an NVIDIA driver and the "
            "NVIDIA Container Toolkit."
        )
    if driver is None:
        return "No GPU is used: no NVIDIA driver was found."
    if driver[0] < needed:
        oldest = f", which means driver {OLDEST_DRIVER[needed]} or newer" if needed in OLDEST_DRIVER else ""
        return (
            f"No GPU is used: the NVIDIA driver is too old. It is made for CUDA {driver[0]}.{driver[1]}; this torch "
            f"needs CUDA {needed}.0{oldest} (nvidia-smi shows which is installed)."
        )
    details = f" CUDA says: {problem}" if (problem := _cuda_problem()) else ""
    return (
        "A GPU driver is installed, but no GPU is visible: check nvidia-smi, CUDA_VISIBLE_DEVICES and a container's "
        f"--gpus.{details}"
    )


def cuda_of_driver() -> tuple[int, int] | None:
    """Return the newest CUDA (major, minor) that the NVIDIA driver supports; None without a driver."""
    version = ctypes.c_int()
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        if library.cuDriverGetVersion(ctypes.byref(version)):
            return None
    except (OSError, AttributeError):
        return None
    return version.value // 1000, version.value % 1000 // 10


def _cuda_is_available() -> bool:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "CUDA initialization")  # gpu_problem reports it in one line
        return torch.cuda.is_available()


def _cuda_problem() -> str:
    """Return the first line of torch's warning when it looks for GPUs."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.is_available()
    return str(caught[0].message).strip().splitlines()[0] if caught else ""


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "sve_bf16"))


AVAILABLE: dict[str, Callable[[], bool]] = {  # in order of preference
    "cuda": _cuda_is_available,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}
NATIVE_BF16: dict[str, Callable[[], bool]] = {
    "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
    "mps": lambda: False,
    "cpu": _cpu_has_bf16,
}
