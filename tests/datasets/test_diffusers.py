"""Folders in diffusers' format: every layout is read, no code in them is executed, and mistakes are named."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from kedro.io import DatasetError

from ddpm_kedro.datasets.diffusers import DiffusersDataset
from ddpm_kedro.datasets.model import ModelDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.models import from_diffusers, to_diffusers
from ddpm_kedro.nothing import NOTHING
from tests.models.test_diffusers_format import assert_same_images, inputs, published, trained

Layout = Any


def with_folders(folder: Path, network: UNet2DModel) -> None:
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(folder)


def with_folders_of_bin(folder: Path, network: UNet2DModel) -> None:
    DDPMPipeline(network, DDIMScheduler()).save_pretrained(folder, safe_serialization=False)


def flat(folder: Path, network: UNet2DModel) -> None:
    network.save_pretrained(folder)
    DDPMScheduler().save_pretrained(folder)


def flat_of_bin_with_older_names(folder: Path, network: UNet2DModel) -> None:
    """Save in the layout of the first published models."""
    flat(folder, network)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    weights = network.state_dict()
    for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        weights = {name.replace(f".{new}.", f".{old}."): tensor for name, tensor in weights.items()}
    torch.save(weights, folder / "diffusion_pytorch_model.bin")


def flat_with_a_folder_for_the_scheduler(folder: Path, network: UNet2DModel) -> None:
    network.save_pretrained(folder)
    DDPMScheduler().save_pretrained(folder / "scheduler")


LAYOUTS = [
    with_folders,
    with_folders_of_bin,
    flat,
    flat_of_bin_with_older_names,
    flat_with_a_folder_for_the_scheduler,
]


def load(folder: Path) -> Any:
    return DiffusersDataset(filepath=str(folder)).load()


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_every_layout_is_read(layout: Layout, tmp_path: Path) -> None:
    theirs = published()
    layout(tmp_path / "found", theirs)
    model = from_diffusers(load(tmp_path / "found"))
    x, t = inputs((32, 32))
    assert_same_images(model.network(x, t), theirs(x, t).sample)
    assert (model.diffusion.schedule, model.diffusion.num_timesteps, model.diffusion.target) == (
        "linear",
        1000,
        "noise",
    )


def test_other_files_have_another_fingerprint(tmp_path: Path) -> None:
    flat(tmp_path / "one", published())
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    one, copy = (from_diffusers(load(tmp_path / name)) for name in ("one", "copy"))
    assert one.run_id == copy.run_id
    config = tmp_path / "copy" / "scheduler_config.json"
    config.write_text(config.read_text().replace('"beta_end": 0.02', '"beta_end": 0.03'))
    changed = from_diffusers(load(tmp_path / "copy"))
    assert changed.made_by.inputs["imported"] != one.made_by.inputs["imported"]
    assert changed.run_id != one.run_id


@pytest.mark.parametrize("classes", [0, 3])
def test_load_returns_what_save_wrote_in_place_of_an_earlier_model(classes: int, tmp_path: Path) -> None:
    dataset = DiffusersDataset(filepath=str(tmp_path / "diffusers"))
    dataset.save(to_diffusers(trained(3 - classes)))
    model = trained(classes)
    dataset.save(to_diffusers(model))
    again = from_diffusers(dataset.load())
    assert again.config() == model.config() | {"imported": True}
    assert all(again.network.state_dict()[name].equal(w) for name, w in model.network.state_dict().items())
    assert (tmp_path / "diffusers/unet_with_classes").exists() == bool(classes)
    assert os.listdir(tmp_path) == ["diffusers"]


def test_a_model_that_is_not_exported_removes_the_earlier_folder(tmp_path: Path) -> None:
    dataset = DiffusersDataset(filepath=str(tmp_path / "diffusers"))
    dataset.save(NOTHING)
    assert not list(tmp_path.iterdir())
    dataset.save(to_diffusers(trained()))
    assert dataset.exists()
    dataset.save(NOTHING)
    assert not list(tmp_path.iterdir())


class Code:
    """An object whose unpickling executes code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_not_executed(tmp_path: Path) -> None:
    flat_of_bin_with_older_names(tmp_path / "found", published())
    trap = tmp_path / "executed"
    torch.save({"conv_in.weight": Code(trap)}, tmp_path / "found/diffusion_pytorch_model.bin")
    with pytest.raises(DatasetError, match="no code in it was executed"):
        load(tmp_path / "found")
    assert not trap.exists()
    torch.load(tmp_path / "found/diffusion_pytorch_model.bin", weights_only=False)
    assert trap.exists()  # the trap works


def write(name: str, content: str | None) -> Any:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_text(content)

    return change


DAMAGE: dict[str, tuple[Any, str]] = {
    "no folder": (lambda folder: shutil.rmtree(folder), "no model in .* has unet/config.json"),
    "no configuration": (write("config.json", None), "no model in .* has unet/config.json"),
    "no JSON": (write("config.json", "{"), r"config\.json is not JSON"),
    "a list": (write("config.json", "[]"), "is not a JSON object"),
    "no weights": (write("diffusion_pytorch_model.safetensors", None), "No weights in .*safetensors, or the older"),
    "damaged weights": (write("diffusion_pytorch_model.safetensors", "x"), "is damaged"),
    "no scheduler": (write("scheduler_config.json", None), r"has no scheduler_config\.json"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_missing_and_damaged_files_of_diffusers_are_named(damage: str, tmp_path: Path) -> None:
    change, message = DAMAGE[damage]
    flat(tmp_path / "found", published())
    change(tmp_path / "found")
    with pytest.raises(DatasetError, match=message):
        load(tmp_path / "found")


@pytest.mark.parametrize("content", ["truncated", "empty", "text", "a list"])
def test_a_damaged_bin_file_is_named(content: str, tmp_path: Path) -> None:
    flat_of_bin_with_older_names(tmp_path / "found", published())
    path = tmp_path / "found/diffusion_pytorch_model.bin"
    if content == "a list":
        torch.save([1], path)
    else:
        path.write_bytes({"truncated": path.read_bytes()[:1000], "empty": b"", "text": b"no tensors"}[content])
    with pytest.raises(DatasetError, match=r"model\.bin (is damaged|contains (something other|more) than tensors)"):
        load(tmp_path / "found")


def test_an_import_without_a_path_is_an_error() -> None:
    dataset = DiffusersDataset(filepath=None)
    assert not dataset.exists()
    with pytest.raises(DatasetError, match=r"import_model\.path names no folder"):
        dataset.load()


def test_importing_a_model_of_this_project_is_an_error(tmp_path: Path) -> None:
    ModelDataset(filepath=str(tmp_path / "model")).save(trained())
    with pytest.raises(DatasetError, match=r"is a model of this project already.*training\.initial_model"):
        load(tmp_path / "model")


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "", "[1]", "\x00"])
@pytest.mark.parametrize("name", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_document_that_cannot_be_read_is_named(name: str, text: str, tmp_path: Path) -> None:
    DiffusersDataset(filepath=str(tmp_path)).save(to_diffusers(trained()))
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=rf"{name} (is not JSON|is not a JSON object)") as error:
        DiffusersDataset(filepath=str(tmp_path)).load()
    assert isinstance(error.value.__cause__, UserError)
    assert len(str(error.value.__cause__)) < 500
