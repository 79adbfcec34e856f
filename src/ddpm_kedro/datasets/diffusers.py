"""Models in diffusers' format on disk."""

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ddpm_kedro.atomic import replaced_folder
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.files import file_checksum
from ddpm_kedro.models import DiffusersModel
from ddpm_kedro.models.diffusers_config import VERSION
from ddpm_kedro.models.weights import write_tensors
from ddpm_kedro.nothing import Nothing

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
CLASSES, OWN = "unet_with_classes", "ddpm_kedro.json"
PIPELINE = {
    "_class_name": "DDPMPipeline",
    "_diffusers_version": VERSION,
    "scheduler": ["diffusers", "DDPMScheduler"],
    "unet": ["diffusers", "UNet2DModel"],
}
Part = tuple[Path, Path]  # config.json and the tensors


class DiffusersDataset(LocalDataset[DiffusersModel | Nothing, DiffusersModel]):
    """A folder that ``diffusers.DDPMPipeline.from_pretrained`` loads. Saving NOTHING removes it.

    Folders without ``unet/``, as in the first published models, and tensors in a ``.bin`` file can be read too.
    """

    def load(self) -> DiffusersModel:
        """Read the folder, on the CPU; no code in it is executed.

        Raises:
            UserError: for a folder or a file that is missing or cannot be read.
        """
        folder, own = self._filepath, self._filepath / OWN
        unet, scheduler = self._unet(), self._scheduler()
        with_classes = _part(folder / CLASSES) if own.exists() and (folder / CLASSES).exists() else None
        files = [*unet, scheduler, *(with_classes or ()), *([own] if own.exists() else ())]
        return DiffusersModel(
            unet=_read_part(unet),
            scheduler=_read_json(scheduler),
            with_classes=_read_part(with_classes) if with_classes else None,
            own=_read_json(own) if own.exists() else None,
            fingerprint=hashlib.sha256(b"".join(bytes.fromhex(file_checksum(path)) for path in files)).hexdigest()[:12],
        )

    def save(self, data: DiffusersModel | Nothing) -> None:
        """Write the new folder beside the old one, then replace the old one."""
        if isinstance(data, Nothing):
            shutil.rmtree(self._filepath, ignore_errors=True)  # it holds another model
            return
        documents = {"model_index.json": PIPELINE, "scheduler/scheduler_config.json": data.scheduler}
        parts = {"unet": data.unet, CLASSES: data.with_classes}
        with replaced_folder(self._filepath) as new:
            for name, (config, weights) in ((name, part) for name, part in parts.items() if part is not None):
                (new / name).mkdir()
                write_tensors(weights, new / name / WEIGHTS[0])
                documents[f"{name}/config.json"] = config
            if data.own is not None:
                documents[OWN] = data.own
            for name, document in documents.items():
                (new / name).parent.mkdir(exist_ok=True)
                (new / name).write_text(json.dumps(document, indent=2) + "\n")

    def _unet(self) -> Part:
        if not self._named:
            raise UserError(
                "import_model.path names no folder: `kedro run --pipelines import_model --params import_model.path=…`"
            )
        if (self._filepath / "model.safetensors").exists():
            raise UserError(
                f"import_model.path: {self._filepath} is a model of this project already. To start training from it, "
                "set training.initial_model to this folder."
            )
        for folder in (self._filepath / "unet", self._filepath):
            if (folder / "config.json").exists():
                return _part(folder)
        raise UserError(
            f"import_model.path: no model in {self._filepath}. A folder in diffusers' format has unet/config.json, "
            f"unet/{WEIGHTS[0]} and scheduler/scheduler_config.json, or all of them without folders. "
            "save_pretrained() writes such a folder, and models are published as one."
        )

    def _scheduler(self) -> Path:
        for folder in (self._filepath / "scheduler", self._filepath):
            if (folder / "scheduler_config.json").exists():
                return folder / "scheduler_config.json"
        raise UserError(
            f"{self._filepath} has no scheduler_config.json, so the noise schedule is unknown: put the file that the "
            "model was trained with there, or into a folder scheduler/."
        )


def _part(folder: Path) -> Part:
    """Return the two files of a network; safetensors come before the older format."""
    for name in WEIGHTS:
        if (folder / name).exists():
            return folder / "config.json", folder / name
    raise UserError(f"No weights in {folder}: {WEIGHTS[0]}, or the older {WEIGHTS[1]}, is expected there.")


def _read_part(part: Part) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return _read_json(part[0]), _read_tensors(part[1])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object.")
    return content


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} contains more than tensors, or is damaged; no code in it was executed. Get the model as "
            "safetensors."
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): copy or download it again.") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise UserError(f"{path} contains something other than tensors by name.")
    return dict(tensors)
