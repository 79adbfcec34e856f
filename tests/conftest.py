"""Shared by the tests: small parameters, small images, a project in a temporary folder."""

import os

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.pop("WANDB_API_KEY", None)  # no test logs to the account of the person who runs it
os.environ["NETRC"] = "/nonexistent"

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.parameters import (
    AugmentationParameters,
    DiffusionParameters,
    EvaluationParameters,
    ImagesParameters,
    ImageToImageParameters,
    ImportModelParameters,
    InpaintingParameters,
    InterpolationParameters,
    ModelParameters,
    OptimizerParameters,
    PlanParameters,
    ReportingParameters,
    SamplingParameters,
    TrainingParameters,
)
from ddpm_kedro.planning.profile import DeviceProfile
from ddpm_kedro.provenance import Provenance
from tests.archives import Server, serve
from tests.planning.devices import CPU

if TYPE_CHECKING:  # Kedro is imported only where it is used: the tests of a device run without it
    from click.testing import Result

os.fsync = lambda _: None  # no test cuts the power, and syncing takes longer than a short run on a busy disk

ROOT = Path(__file__).parents[1]
WHOLE_RUNS = ("test_readme.py", "test_sweep.py", "test_benchmarks.py", "test_gpu_kit.py")
DEVICES = [
    name
    for name, available in {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }.items()
    if available
]

IMAGES = ImagesParameters(
    holdout_fraction=0.1,
    seed=0,
    size=None,
    channels=None,
    fit="crop",
    background=(255, 255, 255),
    max_pixels=50_000_000,
    max_rejected_fraction=0.1,
    workers=0,
)
MODEL = ModelParameters(
    width=8,
    channel_multipliers=(1, 2),
    blocks_per_level=1,
    attention_levels=(1,),
    head_channels=None,
    norm_groups=4,
    norm_eps=1e-5,
    dropout=0.0,
    patch_size=1,
    class_conditional=True,
)
DIFFUSION = DiffusionParameters(num_timesteps=100, schedule="cosine", target="v")
OPTIMIZER = OptimizerParameters(
    name="adam",
    lr=1e-3,
    betas=(0.9, 0.99),
    weight_decay=0.0,
    warmup_images=16,
    lr_schedule="cosine",
    final_lr_fraction=0.1,
    max_grad_norm=1.0,
)
TRAINING = TrainingParameters(
    seed=0,
    initial_model=None,
    batch_size=8,
    num_images=64,
    ema_half_life=20,
    ema_rampup_ratio=0.5,
    label_dropout=0.1,
    report_interval=32,
    checkpoint_interval=32,
    validation_images=12,
    preview_images=6,
    preview_steps=2,
    preview_guidance_scale=1.5,
    resume="auto",
    export="last",
    keep_checkpoints=2,
    accumulation_steps=1,
    activation_checkpointing=False,
    compile="none",
    loader_workers=0,
    process_timeout=60,
    device="cpu",
    precision="fp32",
    deterministic=False,
)
SAMPLING = SamplingParameters(
    num_images=6,
    seed=0,
    label=None,
    sampler="ddim",
    num_inference_steps=4,
    timestep_spacing="trailing",
    karras_rho=7.0,
    threshold="clamp",
    guidance_scale=1.5,
    guidance_interval=None,
    ddim_eta=0.0,
    ddpm_variance="small",
    batch_size=4,
    device="cpu",
    precision="fp32",
)
MADE_BY = Provenance({"images": {"seed": 0}}, {"raw_images": "a-fingerprint"})
EVALUATION = EvaluationParameters(
    extractor="classifier",
    inception_weights=None,
    seed=0,
    fit_images=64,
    fit_batch_size=16,
    refit=False,
    device="cpu",
    reference_images=100,
    kid_subsets=2,
    timestep_bins=4,
    shown=3,
)
REPORTING = ReportingParameters(film_frames=4, trajectory_images=2, trajectory_steps=3)
IMAGE_TO_IMAGE = ImageToImageParameters(num_images=2, strengths=(0.5,))
INPAINTING = InpaintingParameters(num_images=2, box=(0.5, 0.0, 1.0, 1.0), variants=1)
INTERPOLATION = InterpolationParameters(num_images=2, seeds=(0, 1), frames=3)
PLAN = PlanParameters(time_budget="10min", renew=False, timing_seconds=0)
IMPORT_MODEL = ImportModelParameters(path=None, class_names=None)
NO_AUGMENTATION = AugmentationParameters(horizontal_flip=False, vertical_flip=False, crop_padding=0, non_leaking=0.0)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device of this machine."""
    return torch.device(request.param)


def make_store(count: int = 40, classes: int = 3, size: tuple[int, int] = (8, 8), channels: int = 1) -> ImageStore:
    """Return images whose brightness depends on their class."""
    rng = np.random.default_rng(0)
    labels = (np.arange(count) % max(classes, 1)).astype(np.int64)
    images = rng.integers(0, 60, (count, *size, channels)) + (labels * 60)[:, None, None, None]
    names = tuple(f"class {index}" for index in range(classes))
    return ImageStore(images.astype(np.uint8), labels if classes else None, names, MADE_BY)


@pytest.fixture
def store() -> ImageStore:
    """40 small images of three classes."""
    return make_store()


def randomise(network: torch.nn.Module, scale: float = 0.3) -> torch.nn.Module:
    """Give every parameter a random value: zero-initialised layers would hide the layers before them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return network


def copy_folder(source: Path, target: Path, **options: Any) -> None:
    """Copy the files of a folder with their times; to copy their rights takes several times as long."""

    def copy(file: str, to: str) -> None:
        shutil.copyfile(file, to)
        os.utime(to, ns=(0, os.stat(file).st_mtime_ns))

    shutil.copytree(source, target, copy_function=copy, **options)


class Project:
    """The project in its own folder, with the real configuration and the ``smoke`` environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data" / "smoke"
        copy_folder(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
        (folder / "conf" / "local").mkdir()
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / "src").mkdir()  # the package itself is installed

    def adopt(self, data: Path) -> "Project":
        """Copy the data that a run of another project wrote, and what Kedro-Viz recorded of it."""
        copy_folder(data, self.data, dirs_exist_ok=True)
        copy_folder(data.parents[1] / ".viz", self.folder / ".viz", dirs_exist_ok=True)
        return self

    def adopt_images(self, data: Path) -> "Project":
        """Copy only what ingestion wrote: the ingestion of the same images is a no-op then."""
        for name in ("01_raw", "05_model_input"):
            copy_folder(data / name, self.data / name)
        return self

    def kedro_run(self, *arguments: str, env: str = "smoke") -> "Result":
        """Run ``kedro run --env smoke`` with these arguments in this process."""
        from click.testing import CliRunner  # noqa: PLC0415

        from ddpm_kedro.cli import run as run_command  # noqa: PLC0415

        return CliRunner().invoke(run_command, ["--env", env, *arguments])

    def parameters(self, changes: str = "", env: str = "smoke") -> dict[str, Any]:
        """Return the resolved parameters, with changes as on the command line."""
        from kedro.framework.cli.utils import _split_params as split_params  # noqa: PLC0415
        from kedro.framework.session import KedroSession  # noqa: PLC0415

        runtime = split_params(None, None, changes) if changes else {}
        with KedroSession.create(self.folder, env=env, runtime_params=runtime) as session:
            parameters: dict[str, Any] = session.load_context().config_loader["parameters"]
            return parameters

    def history(self) -> str:
        return (self.data / "08_reporting" / "training_history.csv").read_text()


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Seed torch: tests that sample without a generator are repeatable."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _known_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let plans be made for a device of known speed: measuring takes seconds, and the machine is busy."""

    def measure(kind: str, *_: object) -> DeviceProfile:
        return replace(CPU, kind=kind)

    monkeypatch.setattr("ddpm_kedro.planning.measurement.measure_profile", measure)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A local web server: its address, and the folder that it serves."""
    with serve(tmp_path_factory.mktemp("served")) as made:
        yield made


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A fresh project, which is also the working folder."""
    from kedro.framework.startup import bootstrap_project  # noqa: PLC0415

    made = Project(tmp_path)
    monkeypatch.chdir(tmp_path)
    bootstrap_project(tmp_path)
    return made


@pytest.fixture(scope="session")
def smoke_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data that one run of the ``smoke`` environment writes; to be copied, not changed."""
    from kedro.framework.startup import bootstrap_project  # noqa: PLC0415
    from kedro_viz.integrations.kedro.run_hooks import pipeline_run_hook  # noqa: PLC0415

    pipeline_run_hook._events.clear()  # of earlier runs in this process, which Kedro-Viz would show, too
    before, made = Path.cwd(), Project(tmp_path_factory.mktemp("smoke"))
    os.chdir(made.folder)
    try:
        bootstrap_project(made.folder)
        result = made.kedro_run()
    finally:
        os.chdir(before)
    assert result.exit_code == 0, result.output
    return made.data


@pytest.fixture
def finished(project: Project, smoke_data: Path) -> Project:
    """A project with a finished run."""
    return project.adopt(smoke_data)


def changed(parameters: Any, **values: Any) -> Any:
    """Return the parameters with other values, validated."""
    return type(parameters).model_validate({**parameters.model_dump(), **values})


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--screenshots``; see tests/integration/test_viz.py."""
    parser.addoption("--screenshots", action="store_true", help="take them of the last run, for the documentation")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start with the longest tests: at the end, no process waits for another.

    No coverage is measured of slow tests and of whole runs: it slows them by half, and others cover the lines.
    """
    items.sort(key=lambda item: item.path.parent.name != "integration")
    coverage = config.pluginmanager.get_plugin("_cov")
    for item in items if coverage is not None and coverage.cov_controller is not None else ():
        whole_runs = item.path.parent.name == "integration" or item.path.name in WHOLE_RUNS
        if whole_runs or item.get_closest_marker("slow"):
            item.add_marker("no_cover")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail in CI if a test was skipped: nothing may go untested unnoticed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
