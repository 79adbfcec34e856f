"""Devices that no machine has: their speed is known exactly."""

from ddpm_kedro.planning.profile import EXTRACTOR, DeviceProfile, Timing

NETWORKS = ((2e8, 1.2e6, 300, 32), (1.7e9, 8e6, 480, 8), (4e9, 1.7e7, 700, 32), (1.3e10, 2.5e7, 700, 8))
"""FLOPs, values written, operations and batch of the reference networks."""


def device(name: str, kind: str, precision: str, memory: float, *seconds: float) -> DeviceProfile:
    """Return a device with these seconds per operation, per value and per FLOP."""
    per_operation, per_value, per_flop = seconds
    timings = [
        Timing(
            "reference",
            flops,
            values,
            count,
            batch,
            per_operation * count + batch * (per_value * values + per_flop * flops),
        )
        for flops, values, count, batch in NETWORKS
    ]
    return DeviceProfile(name, kind, precision, int(memory), (*timings, Timing(EXTRACTOR, 6e7, 1e6, 100, 64, 0.04)))


CPU = device("two cores", "cpu", "fp32", 8e9, 2e-5, 5e-10, 1 / 120e9)
GPU = device("a GPU", "cuda", "bf16", 24e9, 2e-5, 4e-12, 1 / 150e12)
