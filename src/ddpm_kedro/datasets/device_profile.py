"""What this device can do, measured once and kept in a file."""

import json
import logging
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_kedro.atomic import write_text
from ddpm_kedro.datasets.base import FileDataset
from ddpm_kedro.nothing import Nothing
from ddpm_kedro.provenance import fingerprint

if TYPE_CHECKING:
    from ddpm_kedro.planning.profile import DeviceProfile

logger = logging.getLogger(__name__)
NVIDIA = "/proc/driver/nvidia/gpus"


class LazyDeviceProfile:
    """A profile that is measured when it is first needed, and then kept.

    Args:
        path: JSON file with the profiles of all devices that used this data folder, by their kind.
        device, precision: as for training.
        seconds: maximum time to measure.
    """

    def __init__(self, path: Path, device: Any, precision: Any, seconds: float) -> None:
        self._path, self._device, self._precision, self._seconds = path, device, precision, seconds

    @property
    def kind(self) -> str:
        """Return the kind of the device, without measuring anything."""
        from ddpm_kedro.planning.measurement import name_device  # noqa: PLC0415  torch takes seconds

        return name_device(processor_name(), self._device, self._precision)

    def __call__(self) -> "DeviceProfile":
        """Return the profile; measure it if the file has none of this kind of device."""
        from ddpm_kedro.planning import measurement  # noqa: PLC0415
        from ddpm_kedro.planning.profile import DeviceProfile  # noqa: PLC0415

        kept = _read(self._path)
        kind = self.kind
        if kind in kept:
            return DeviceProfile.from_dict(kept[kind])
        logger.info("Measuring the speed of %s, in at most %.0f s.", kind, max(1.0, self._seconds))
        profile = measurement.measure_profile(kind, self._device, self._precision, self._seconds)
        write_text(self._path, json.dumps(kept | {kind: profile.as_dict()}, indent=2) + "\n")
        return profile


class DeviceProfileDataset(FileDataset[Nothing, Callable[[], "DeviceProfile"]]):
    """Load the profile of the device that training uses, lazily: nothing is measured unless a plan needs it.

    Args:
        filepath, metadata: see :class:`FileDataset`; the file is local.
        device, precision: as for training.
        seconds: maximum time to measure.
    """

    def __init__(
        self, *, filepath: str, device: str, precision: str, seconds: float, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(filepath=self._local(filepath), metadata=metadata)
        self._device, self._precision, self._seconds = device, precision, seconds

    def load(self) -> LazyDeviceProfile:
        """Return the profile, which is measured when it is called."""
        return LazyDeviceProfile(self._filepath, self._device, self._precision, self._seconds)

    def save(self, data: Nothing) -> None:
        """Raise: the profile is measured when it is loaded."""
        raise NotImplementedError

    def remote_stamp(self) -> str:
        """Return a hash that names this machine: what is loaded depends on it, not on the file."""
        gpus = sorted(each.read_text() for each in Path(NVIDIA).glob("*/information"))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return fingerprint(self._device, self._precision, processor_name(), cores, gpus)

    def _exists(self) -> bool:
        return True


def processor_name() -> str:
    """Return the name of the processor, also where Python does not know it."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names and names[0]:
            return names[0]
    return platform.processor() or platform.machine()


def _read(path: Path) -> dict[str, Any]:
    """Return the profiles in a file; a damaged file counts as empty."""
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}
