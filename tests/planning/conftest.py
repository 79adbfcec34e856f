"""Parameters for the tests of planning, and costs that need no counting."""

from collections.abc import Callable
from typing import Any

import pytest

from ddpm_kedro.config import GroupConfigLoader
from ddpm_kedro.parameters import ModelParameters, Parameters, check_parameters
from ddpm_kedro.planning import sizing
from ddpm_kedro.planning.cost import Cost
from ddpm_kedro.planning.profile import DeviceProfile
from ddpm_kedro.planning.sizing import Task
from ddpm_kedro.settings import CONFIG_LOADER_ARGS
from tests.conftest import ROOT
from tests.planning.devices import CPU

MakeTask = Callable[..., Task]


@pytest.fixture(scope="session")
def parameters() -> Parameters:
    """The parameters of conf/base."""
    loader = GroupConfigLoader(str(ROOT / "conf"), **CONFIG_LOADER_ARGS | {"default_run_env": "base", "callback": None})
    return check_parameters(loader["parameters"])


@pytest.fixture
def make_task(parameters: Parameters) -> MakeTask:
    """Return a function that makes a task: ten minutes on two cores, for 45,000 images of ten classes."""

    def make(
        side: int = 32,
        count: int = 45_000,
        classes: int = 10,
        channels: int = 3,
        profile: DeviceProfile = CPU,
        seconds: float = 600.0,
        **given: Any,
    ) -> Task:
        names = {name.replace("__", "."): value for name, value in given.items()}
        return Task((channels, side, side), count, classes, profile, seconds, parameters, names)

    return make


@pytest.fixture
def estimated_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the counted costs by a formula: counting takes a tenth of a second per network."""

    def cost(model: ModelParameters, shape: tuple[int, int, int], classes: int) -> Cost:
        size = (shape[1] / model.patch_size / 32) ** 2 * model.blocks_per_level
        values, flops = size * model.width / 32, size * (model.width / 32) ** 2
        return Cost(1.7e9 * flops, 8e6 * values, 480, int(1.1e6 * (model.width / 32) ** 2))

    def memory(
        model: ModelParameters, shape: Any, classes: int, part: int, hardware: Any, recompute: bool, **_: Any
    ) -> int:
        each = 40 * cost(model, shape, classes).elements / (4 if recompute else 1)
        return int(16 * cost(model, shape, classes).parameters + part * each)

    monkeypatch.setattr(sizing, "unet_cost", cost)
    monkeypatch.setattr(sizing, "training_memory", memory)
