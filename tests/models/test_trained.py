"""Trained models: saved, loaded without Kedro, and built from any network of the table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ddpm_kedro.datasets.model import ModelDataset
from ddpm_kedro.diffusion import SamplingPlan, generate_images
from ddpm_kedro.errors import UserError
from ddpm_kedro.models import NETWORKS, RunRecord, TrainedModel, build_network, unsupported_reason
from ddpm_kedro.parameters import ModelParameters
from ddpm_kedro.provenance import Provenance
from tests.conftest import DIFFUSION, MODEL, randomise

PARAMETERS = {"model": MODEL.fingerprint_fields(), "diffusion": DIFFUSION.fingerprint_fields()}
SNIPPET = """
import sys
from ddpm_kedro.diffusion import SamplingPlan, generate_images
from ddpm_kedro.models import TrainedModel

model = TrainedModel.load(sys.argv[1])
plan = SamplingPlan(model.diffusion, sampler="ddim", num_inference_steps=2)
images = generate_images(model.network, plan, model.image_shape, seed=0, indices=range(4))
assert images.shape == (4, 1, 8, 8)
print([name for name in sys.modules if name.split(".")[0] in ("kedro", "kedro_datasets")])
"""


def trained_model() -> TrainedModel:
    network = randomise(build_network(MODEL, 1, 2)).eval()
    return TrainedModel(
        network, RunRecord(Provenance(PARAMETERS, {"training_images": "0"}), (1, 8, 8), ("a", "b")), 640
    )


def test_load_returns_what_save_wrote(tmp_path: Path) -> None:
    model = trained_model()
    model.save(tmp_path / "new" / "model")
    loaded = TrainedModel.load(str(tmp_path / "new" / "model"))
    assert loaded.config() == model.config()
    assert not loaded.network.training
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor)


def test_save_writes_the_files_of_the_dataset(tmp_path: Path) -> None:
    model = trained_model()
    model.save(tmp_path / "one")
    ModelDataset(filepath=str(tmp_path / "two")).save(model)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_loading_and_sampling_import_no_kedro(tmp_path: Path) -> None:
    trained_model().save(tmp_path)
    done = subprocess.run([sys.executable, "-c", SNIPPET, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No trained model in .*model; run `kedro run` first"):
        TrainedModel.load(tmp_path / "model")
    trained_model().save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"damaged.*model.safetensors does not match its checksum.*exports it again"):
        TrainedModel.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"damaged.*model.safetensors: No such file"):
        TrainedModel.load(tmp_path)


def test_models_of_earlier_versions_without_checksums_are_loaded(tmp_path: Path) -> None:
    trained_model().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("checksum", "weights_sha256", "run_id", "weights"):
        del config[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert TrainedModel.load(tmp_path).run_id == trained_model().run_id


class Convolution(nn.Module):
    """The smallest network with classes."""

    def __init__(self, parameters: ModelParameters, channels: int, num_classes: int = 0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)
        self.classes = nn.Embedding(num_classes + 1, channels)

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is None:
            labels = torch.full_like(timesteps, self.num_classes, dtype=torch.int64)
        return self.convolution(x) + self.classes(labels)[:, :, None, None]


def test_another_network_needs_one_line_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "convolution", Convolution)
    monkeypatch.setattr(ModelParameters, "network", "convolution")
    parameters = PARAMETERS | {"training": {"label_dropout": 0.1}}
    network = build_network(MODEL, 1, 2)
    TrainedModel(network, RunRecord(Provenance(parameters, {}), (1, 8, 8), ("a", "b")), 640).save(tmp_path)
    model = TrainedModel.load(tmp_path)
    assert isinstance(model.network, Convolution)
    assert model.knows_empty_label
    assert "UNet2DModel is a U-Net, and model.network is convolution" in str(unsupported_reason(model))
    plan = SamplingPlan(model.diffusion, num_inference_steps=2, guidance_scale=1.5)
    samples = generate_images(model.network, plan, model.image_shape, 0, range(2), torch.tensor([0, 1]))
    assert samples.shape == (2, 1, 8, 8)
