"""Which device computes, and in which precision."""

import ctypes
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch

from ddpm_kedro.errors import UserError
from ddpm_kedro.parameters import Device, Precision

OLDEST_DRIVER = {12: 525, 13: 580}
"""The first driver for each major version of CUDA; minor versions run on any driver of their major version."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Hardware:
    """A device, a precision and why they were chosen."""

    device: torch.device
    precision: str
    reason: str

    @property
    def autocast(self) -> Callable[[], AbstractContextManager[object]]:
        """Makes the context in which the network runs; weights stay in float32."""
        if self.precision == "fp32":
            return nullcontext
        return partial(torch.autocast, self.device.type, dtype=DTYPES[self.precision])

    @property
    def memory_format(self) -> torch.memory_format:
        """How pixels lie in memory while a network is trained: channels last, where that is not slower.

        In bfloat16 on a CPU the backward pass of GroupNorm loses more by it than convolutions gain.
        """
        slow = self.device.type == "cpu" and self.precision == "bf16"
        return torch.contiguous_format if slow else torch.channels_last

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Scales the loss so that fp16 gradients do not vanish; does nothing in other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")


def choose_hardware(device: Device, precision: Precision) -> Hardware:
    """The device and precision asked for, "auto" meaning the best that works natively.

    Raises:
        UserError: for a device this machine does not have.
    """
    available = [name for name, there in AVAILABLE.items() if there()]
    if device != "auto" and device not in available:
        cause = f" {gpu_problem()}" if device == "cuda" else ""
        raise UserError(f"device = {device} is not available here; this machine has: {', '.join(available)}.{cause}")
    chosen = available[0] if device == "auto" else device
    native = NATIVE_BF16[chosen]()
    if precision != "auto":
        why = "emulated here, slow" if precision == "bf16" and not native else "as asked"
        return Hardware(torch.device(chosen), precision, f"{chosen}, {precision} ({why})")
    kind = "bf16" if native else "fp32"
    why = "bfloat16 is native here" if native else "no native bfloat16 here"
    return Hardware(torch.device(chosen), kind, f"{chosen}, {kind} ({why})")


def keep_freed_memory() -> None:
    """Let glibc, where it is the allocator, keep what is freed for the next step.

    Else it gives large blocks back to the kernel at once, which clears the same pages anew at every step.
    """
    if sys.platform == "linux" and hasattr(allocator := ctypes.CDLL(None), "mallopt"):
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            allocator.mallopt(option, 2**31 - 1)


def gpu_problem() -> str:
    """Why CUDA cannot be used here, most likely, and what to do: one line."""
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
        oldest = f", that is driver {OLDEST_DRIVER[needed]} or newer" if needed in OLDEST_DRIVER else ""
        return (
            f"No GPU is used: the NVIDIA driver is too old. It is made for CUDA {driver[0]}.{driver[1]}; this torch "
            f"needs CUDA {needed}.0{oldest} (nvidia-smi shows which is installed)."
        )
    said = f" CUDA says: {problem}" if (problem := _cuda_problem()) else ""
    return (
        "No GPU is visible, though its driver is: see nvidia-smi, CUDA_VISIBLE_DEVICES and a container's --gpus." + said
    )


def cuda_of_driver() -> tuple[int, int] | None:
    """The newest CUDA (major, minor) that the NVIDIA driver runs; None where there is no driver."""
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
        warnings.filterwarnings("ignore", "CUDA initialization")  # gpu_problem says it, in one line
        return torch.cuda.is_available()


def _cuda_problem() -> str:
    """The first line of what torch warns of when it looks for GPUs."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.is_available()
    return str(caught[0].message).strip().splitlines()[0] if caught else ""


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "sve_bf16"))


AVAILABLE: dict[str, Callable[[], bool]] = {  # in the order of preference
    "cuda": _cuda_is_available,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}
NATIVE_BF16: dict[str, Callable[[], bool]] = {
    "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
    "mps": lambda: False,
    "cpu": _cpu_has_bf16,
}
