"""When a stored plan is used again."""

import json
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DatasetError

from ddpm_kedro.datasets.chosen_parameters import ChosenParametersDataset, images_of
from ddpm_kedro.datasets.device_profile import DeviceProfileDataset
from ddpm_kedro.parameters import PlanParameters
from ddpm_kedro.parameters.plan import seconds_of
from ddpm_kedro.planning import measurement
from ddpm_kedro.planning.reuse import log_replaced, why_new_plan
from tests.conftest import IMAGES

PLAN = PlanParameters(time_budget="10min", renew=False, timing_seconds=0)
STORED = {
    "parameters": {"plan": {"time_budget": "600s"}, "model": {"width": 16}},
    "plan": {"device": "a", "images": "1", "in_use": False, "table": []},
}
IN_USE = STORED | {"plan": STORED["plan"] | {"in_use": True}}
EARLIER = {"parameters": {"model": {"width": 16}}, "plan": None}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10min", 600), ("10m", 600), ("2h", 7200), ("3d", 259_200), ("1h30min", 5400), (" 1.5 H ", 5400)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "soon", "10 minutes", "h", "-3h", "0min", "1.2.3h", "1h and more", "nan h"])
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration; write 90s, 10min, 2h, 3d or 1h30min"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("stored", "same", "changes", "device", "reason"),
    [
        ({}, False, {}, "a", "these images have no plan yet"),
        ({"parameters": {}, "plan": None}, False, {}, "a", "these images have no plan yet"),
        (STORED, True, {}, "a", None),
        (STORED, True, {"renew": True}, "a", "plan.renew is true"),
        (STORED, False, {}, "a", "the stored plan is for other images"),
        (STORED, True, {"time_budget": "2h"}, "a", "plan.time_budget was 600s"),
        (STORED, True, {}, "b", "the stored plan is for a"),
        (IN_USE, True, {}, "b", None),
        (IN_USE, False, {}, "b", "the stored plan is for other images"),
        (IN_USE, True, {"time_budget": "2h"}, "a", "plan.time_budget was 600s"),
        (EARLIER, True, {}, "b", None),
        (EARLIER, False, {}, "b", "the stored plan is for other images"),
        (EARLIER, True, {"renew": True}, "a", "plan.renew is true"),
    ],
)
def test_a_new_plan_has_a_reason(stored: Any, same: bool, changes: Any, device: str, reason: str | None) -> None:
    assert why_new_plan(stored, same, PLAN.model_copy(update=changes), device) == reason


def test_the_plan_of_a_training_stays_on_another_device_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    why_new_plan(IN_USE, True, PLAN, "b")
    assert "was made for a; this device is b. The plan stays" in caplog.text


def test_replaced_values_of_a_plan_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    log_replaced(
        {"model": {"width": 16, "dropout": 0.0}}, {"model.width": 24, "model.dropout": 0.0, "sampling.seed": 3}
    )
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("model.width = 24 replaces the 16 of the plan")


def test_a_stored_plan_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    dataset = ChosenParametersDataset(filepath=str(tmp_path / "plan.json"))
    dataset.save(IN_USE)
    assert dataset.load() == IN_USE
    document = json.loads((tmp_path / "plan.json").read_text())
    document["plan"]["device"] = "b"
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(DatasetError, match="is damaged or was edited"):
        dataset.load()


def test_the_same_images_are_recognised_by_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = {"source": "folder", "path": "pictures", "classes": None}
    images = IMAGES.model_dump()
    absolute = dataset | {"path": str(tmp_path / "pictures"), "splits": True, "download_folder": "data"}
    named = images_of({"dataset": dataset, "images": images})
    assert named == images_of({"dataset": absolute, "images": images | {"workers": 3}})
    assert named != images_of({"dataset": dataset | {"classes": False}, "images": images})
    assert named != images_of({"dataset": dataset, "images": images | {"size": 24}})


@pytest.mark.parametrize("content", [None, "", "[]", '{"another device": {}}'])
def test_a_device_is_measured_once(content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "device_profile.json"
    if content is not None:
        path.write_text(content)
    dataset = DeviceProfileDataset(filepath=str(path), device="cpu", precision="fp32", seconds=0)
    lazy = dataset.load()
    assert "fp32" in lazy.kind
    first = lazy()
    monkeypatch.setattr(measurement, "measure_profile", lambda *_: pytest.fail("measured again"))
    assert dataset.load()() == first
    other = DeviceProfileDataset(filepath=str(path), device="cpu", precision="bf16", seconds=0)
    assert other.remote_stamp() != dataset.remote_stamp()
