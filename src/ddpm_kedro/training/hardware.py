"""Which device computes, and in which precision."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch

from ddpm_kedro.parameters import Device, Precision, UserError

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
        raise UserError(f"device = {device} is not available here; this machine has: {', '.join(available)}.")
    chosen = available[0] if device == "auto" else device
    native = NATIVE_BF16[chosen]()
    if precision != "auto":
        why = "emulated here, slow" if precision == "bf16" and not native else "as asked"
        return Hardware(torch.device(chosen), precision, f"{chosen}, {precision} ({why})")
    kind = "bf16" if native else "fp32"
    why = "bfloat16 is native here" if native else "no native bfloat16 here"
    return Hardware(torch.device(chosen), kind, f"{chosen}, {kind} ({why})")


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "sve_bf16"))


AVAILABLE: dict[str, Callable[[], bool]] = {  # in the order of preference
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}
NATIVE_BF16: dict[str, Callable[[], bool]] = {
    "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
    "mps": lambda: False,
    "cpu": _cpu_has_bf16,
}
