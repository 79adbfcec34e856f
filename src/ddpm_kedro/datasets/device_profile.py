"""What this device can do, measured once and kept in a file."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_kedro.atomic import write_text
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.nothing import Nothing

if TYPE_CHECKING:
    from ddpm_kedro.planning.profile import DeviceProfile

logger = logging.getLogger(__name__)


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

        return name_device(self._device, self._precision)

    def __call__(self) -> "DeviceProfile":
        """Return the profile; measure it if the file has none of this kind of device."""
        from ddpm_kedro.planning import measurement  # noqa: PLC0415
        from ddpm_kedro.planning.profile import DeviceProfile  # noqa: PLC0415

        kept = _read(self._path)
        kind = self.kind
        if kind in kept:
            return DeviceProfile.from_dict(kept[kind])
        logger.info("Measuring the speed of %s, in at most %.0f s.", kind, max(1.0, self._seconds))
        profile = measurement.measure_profile(self._device, self._precision, self._seconds)
        write_text(self._path, json.dumps(kept | {kind: profile.as_dict()}, indent=2) + "\n")
        return profile


class DeviceProfileDataset(LocalDataset[Nothing, Callable[[], "DeviceProfile"]]):
    """Load the profile of the device that training uses, lazily: nothing is measured unless a plan needs it.

    Args:
        filepath, metadata: see :class:`LocalDataset`.
        device, precision: as for training.
        seconds: maximum time to measure.
    """

    def __init__(
        self, *, filepath: str, device: str, precision: str, seconds: float, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._device, self._precision, self._seconds = device, precision, seconds

    def load(self) -> LazyDeviceProfile:
        """Return the profile, which is measured when it is called."""
        return LazyDeviceProfile(self._filepath, self._device, self._precision, self._seconds)

    def save(self, data: Nothing) -> None:
        """Raise: the profile is measured when it is loaded."""
        raise NotImplementedError

    def _exists(self) -> bool:
        return True


def _read(path: Path) -> dict[str, Any]:
    """Return the profiles in a file; a damaged file counts as empty."""
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}
