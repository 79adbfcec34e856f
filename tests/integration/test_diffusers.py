"""To diffusers and back as a user does it: export, sample with diffusers, import, sample, evaluate, fine-tune."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel

from ddpm_kedro.datasets.model import ModelDataset
from ddpm_kedro.diffusion import SamplingPlan, generate_images, generator_for
from ddpm_kedro.hooks import staleness
from ddpm_kedro.models import TrainedModel
from tests.conftest import Project, randomise
from tests.integration.test_whole_job import digest, failed, ok

TINY = "training.num_images=16,training.report_interval=8,training.preview_images=0,sampling.num_images=10"
IMPORT = ("--pipelines", "import_model", "--params")
TRAIN = ("--pipelines", "model_training", "--params")
SEED = 5


def model_of(project: Project, name: str = "model") -> TrainedModel:
    return ModelDataset(filepath=str(project.data / "06_models" / name)).load()


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def digits(project: Project, smoke_data: Path) -> Project:
    """A finished and exported run with random weights: a short training would leave only noise."""
    project.adopt(smoke_data)
    dataset = ModelDataset(filepath=str(project.data / "06_models/model"))
    model = dataset.load()
    randomise(model.network, 0.1)
    dataset.save(model)
    ok(project.kedro_run("--nodes", "model_training.export_to_diffusers"))
    return project


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A published model of digits without classes, with another architecture than the current parameters."""
    network = UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        down_block_types=("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )
    DDPMPipeline(randomise(network, 0.2), DDPMScheduler(num_train_timesteps=50)).save_pretrained(tmp_path / "published")
    return tmp_path / "published"


def test_diffusers_samples_from_the_folder_that_a_run_exports(finished: Project) -> None:
    folder = finished.data / "06_models/diffusers"
    assert {path.name for path in folder.iterdir()} == {
        "ddpm_kedro.json",
        "model_index.json",
        "scheduler",
        "unet",
        "unet_with_classes",
    }
    for pipeline in (DDPMPipeline.from_pretrained(folder), DDIMPipeline.from_pretrained(folder)):
        images = quiet(pipeline)(batch_size=2, num_inference_steps=3, output_type="np").images
        assert images.shape == (2, 28, 28, 1)
    solver = DPMSolverMultistepScheduler.from_pretrained(folder, subfolder="scheduler")
    assert quiet(DDPMPipeline(pipeline.unet, solver))(num_inference_steps=3, output_type="np").images.shape[0] == 1
    UNet2DModel.from_pretrained(folder, subfolder="unet_with_classes")


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
def test_diffusers_samples_the_same_images(name: str, digits: Project) -> None:
    """Start from the same noise. The pipeline of diffusers has no labels; the project uses the empty label."""
    folder, model = digits.data / "06_models/diffusers", model_of(digits)
    plan = SamplingPlan(model.diffusion, name, num_inference_steps=5)
    ours = generate_images(model.network, plan, model.image_shape, SEED, [0])
    generator = generator_for(SEED, 0)
    options: dict[str, Any] = {}
    if name == "ddim":
        options = {"use_clipped_model_output": True}  # the noise that the clamped x_0 means, as here
        unet = UNet2DModel.from_pretrained(folder, subfolder="unet")
        pipeline = DDIMPipeline(unet, DDIMScheduler.from_pretrained(folder, subfolder="scheduler"))
    else:
        pipeline = DDPMPipeline.from_pretrained(folder)
    theirs = quiet(pipeline)(num_inference_steps=5, generator=generator, output_type="np", **options).images
    assert ours.std() > 0.1
    torch.testing.assert_close((ours / 2 + 0.5).permute(0, 2, 3, 1).numpy(), theirs, rtol=0, atol=1e-3)


def test_importing_the_export_restores_the_model(digits: Project) -> None:
    before = model_of(digits)
    shutil.copytree(digits.data / "06_models/diffusers", digits.folder / "elsewhere")
    shutil.rmtree(digits.data / "06_models")
    ok(digits.kedro_run(*IMPORT, "import_model.path=elsewhere"))
    for name in ("model", "imported_model"):
        after = model_of(digits, name)
        assert after.config() == before.config() | {"imported": True}
        assert all(after.network.state_dict()[n].equal(w) for n, w in before.network.state_dict().items())


def test_an_imported_model_is_sampled_and_evaluated_and_replaced_by_a_run(
    finished: Project, published: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project, before = finished, digest(finished.data / "06_models/model")
    ok(project.kedro_run(*IMPORT, f"import_model.path={published}"))
    caplog.clear()
    ok(project.kedro_run("--pipelines", "sampling,evaluation", "--params", "sampling.num_images=10"))
    assert not [record for record in caplog.records if record.name == staleness.__name__]
    report = json.loads((project.data / "07_model_output/sampling_report.json").read_text())
    assert report["run_id"] == model_of(project).run_id
    message = failed(project.kedro_run("--pipelines", "sampling", "--params", "sampling.num_inference_steps=60"))
    assert "60 is more than the 50 timesteps" in message
    ok(project.kedro_run(*TRAIN, "training.device=cpu"))
    assert digest(project.data / "06_models/model") == before
    assert model_of(project, "imported_model").imported


def test_the_path_of_an_import_can_be_set_in_a_file(project: Project, published: Path) -> None:
    shutil.move(published, project.folder / "found")
    parameters = project.folder / "conf/smoke/parameters.yml"
    parameters.write_text(f"{parameters.read_text()}\nimport_model:\n  path: found\n")
    ok(project.kedro_run("--pipelines", "import_model"))
    assert model_of(project).image_shape == (1, 28, 28)


def test_mistakes_of_an_import_are_named(project: Project, published: Path) -> None:
    failed(project.kedro_run("--pipelines", "import_model"), "import_model.path names no folder")
    failed(project.kedro_run(*IMPORT, "import_model.path=nowhere"), "no model in", "nowhere", "unet/config.json")
    config = published / "unet/config.json"
    config.write_text(config.read_text().replace('"downsample_padding": 0', '"downsample_padding": 1'))
    message = failed(project.kedro_run(*IMPORT, f"import_model.path={published}"))
    assert "downsample_padding = 1 in config.json of the U-Net is not supported. Supported: 0." in message
    assert not (project.data / "06_models").exists()


def test_an_imported_model_is_fine_tuned_and_resumed(
    project: Project, published: Path, smoke_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Name the network that is needed, train, resume by the same command, and notice other initial weights."""
    shutil.copytree(smoke_data / "05_model_input", project.data / "05_model_input")
    ok(project.kedro_run(*IMPORT, f"import_model.path={published}"))
    start = f"{TINY},training.initial_model=data/smoke/06_models/imported_model"
    message = failed(project.kedro_run(*TRAIN, start), "classes: 10 → 0. Take over")
    assert "model.channel_multipliers: [2, 3] → [1, 2]; model.attention_levels: [] → [0]" in message
    parameters = project.folder / "conf/smoke/parameters.yml"
    network = "channel_multipliers: [1, 2]\n  attention_levels: [0]\n  class_conditional: false\n"
    parameters.write_text(parameters.read_text().replace("model:\n", f"model:\n  {network}", 1))
    caplog.set_level("INFO")
    ok(project.kedro_run(*TRAIN, start))
    assert "Initial weights: " in caplog.text
    assert "trained with other diffusion parameters: diffusion.num_timesteps: 50 → 1000" in caplog.text
    tuned = model_of(project)
    assert set(tuned.made_by.inputs) == {"training_images", "initial_model"}
    assert not tuned.imported
    caplog.clear()
    ok(project.kedro_run(*TRAIN, start))
    assert "Everything is up to date" in caplog.text
    caplog.clear()
    ok(project.kedro_run("--pipelines", "sampling", "--params", start))
    assert not [record for record in caplog.records if record.name == staleness.__name__]
    shutil.copytree(project.data / "06_models/model", project.data / "mine")
    caplog.clear()
    ok(project.kedro_run(*TRAIN, f"{TINY},training.initial_model=data/smoke/mine"))
    assert f"starts from scratch, because it differs from run {tuned.run_id}: initial weights: " in caplog.text
    warnings = [record.message for record in caplog.records if record.name == staleness.__name__]
    assert not warnings  # a training reads its initial model and does not make it
    assert model_of(project).run_id != tuned.run_id
    message = failed(project.kedro_run(*TRAIN, f"{TINY},training.initial_model=data/smoke/nowhere"))
    assert "training.initial_model: no model in" in message
    assert "import_model" in message


def test_a_model_without_an_equivalent_in_diffusers_exports_no_folder(
    finished: Project, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert (finished.data / "06_models/diffusers").exists()
    ok(finished.kedro_run(*TRAIN, f"{TINY},model.patch_size=2"))
    assert "Not exported to diffusers: diffusers' UNet2DModel has no patches, and model.patch_size is 2." in caplog.text
    assert not (finished.data / "06_models/diffusers").exists()
