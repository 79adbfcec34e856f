"""The command ``kedro plan``."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project

from ddpm_kedro.cli.plan import plan as plan_command
from tests.conftest import Project

pytestmark = pytest.mark.usefixtures("estimated_costs")
OTHER_DEVICE = ("--images", "5000", "--memory", "24GB", "--flops-rate", "40TFLOPS")


def plan(project: Project, *words: str) -> str:
    metadata = bootstrap_project(project.folder)
    return str(CliRunner().invoke(plan_command, ["--env", "smoke", *words], obj=metadata).output)


def rows(output: str) -> list[list[str]]:
    assert max(map(len, output.splitlines()[1:])) <= 80
    return [re.findall(r"width \d+(?:, patch \d)?|\S+", line) for line in output.splitlines()[2:]]


def test_other_sizes_of_the_ingested_images_are_planned_without_training(finished: Project) -> None:
    before = {path for path in finished.data.rglob("*") if "runs" in path.parts}
    output = plan(finished, "--size", "16,32", "--time-budget", "2h")
    assert re.search(r", 8\.0 GB of memory; 2h:$", output.splitlines()[0])
    (side, network, *_, images, passes), (larger, *_) = rows(output)
    assert passes.replace(",", "").replace(".", "").isdigit()
    assert (side, network, larger) == ("16", "width 8", "32")  # as conf/smoke says
    assert float(passes.replace(",", "")) == pytest.approx(int(images.replace(",", "")) / 4500, rel=0.05)
    assert {path for path in finished.data.rglob("*") if "runs" in path.parts} == before


def test_a_device_that_is_not_here_is_planned_by_its_rate(project: Project) -> None:
    output = plan(project, "--params", "model.width=16", "--size", "32,128", *OTHER_DEVICE)
    assert output.startswith("a device of 40TFLOPS, 24.0 GB of memory; 10min:")
    assert [row[:2] for row in rows(output)] == [["32", "width 16"], ["128", "width 16"]]
    assert "too large for this device" in plan(project, *OTHER_DEVICE[:3], "1MB", *OTHER_DEVICE[4:])


def test_a_profile_of_another_device_is_used(project: Project, tmp_path: Path) -> None:
    plan(project, "--images", "100", "--size", "16")
    profile = tmp_path / "profile.json"
    (project.data / "05_model_input/device_profile.json").rename(profile)
    profile.write_text(profile.read_text().replace(" threads", " other threads"))
    assert " other threads" in plan(project, "--images", "100", "--size", "16", "--profile", str(profile))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "No images were ingested: say how many there are, such as --images 5000."),
        (("--flops-rate", "40TFLOPS", "--images", "9"), "--flops-rate needs --memory"),
        (("--memory", "24", "--images", "9"), "--memory '24': a number with a unit is expected, such as 24GB."),
        ((*OTHER_DEVICE[:4], "--flops-rate", "fast"), "--flops-rate 'fast': a number with a unit is expected"),
        (("--size", "7", *OTHER_DEVICE), "--size '7': numbers of pixels from 8 on are expected"),
        (("--time-budget", "soon"), "'soon' is no duration"),
        (("--profile", "pyproject.toml", "--images", "9"), "--profile pyproject.toml is no device_profile.json"),
    ],
)
def test_wrong_options_are_reported(words: tuple[str, ...], message: str, project: Project) -> None:
    output = plan(project, *words)
    assert message in output
    assert "Traceback" not in output
