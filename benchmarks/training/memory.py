"""Measure the peak memory of training on Linux, each case in a process of its own, beside the estimate."""

import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from benchmarks.training.page import table
from benchmarks.training.results import ROOT, Row

from ddpm_kedro.hardware import Hardware, choose_hardware, keep_freed_memory
from ddpm_kedro.images.augmentation import AugmentedImages
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.parameters import (
    AugmentationParameters,
    DiffusionParameters,
    ModelParameters,
    OptimizerParameters,
    TrainingParameters,
)
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.training.memory import training_memory
from ddpm_kedro.training.run import Run
from ddpm_kedro.training.trainer import Trainer

GROUPS: dict[str, Any] = {
    "augmentation": AugmentationParameters,
    "diffusion": DiffusionParameters,
    "model": ModelParameters,
    "optimizer": OptimizerParameters,
    "training": TrainingParameters,
}
STEPS = 3  # the optimizer makes its state in the first
IMAGES = {32: 32, 64: 16, 128: 8, 256: 4}
"""Images at once, by pixels per side."""
SIZES = {"pictures": (32, 64, 128, 256), "four levels": (128, 256), "small": (32, 64), "ho2020": (32,)}
"""Pixels per side, by network: options of use.model, and FOUR_LEVELS."""
FOUR_LEVELS = {
    "width": 64,
    "channel_multipliers": (1, 2, 3, 4),
    "attention_levels": (3,),
    "blocks_per_level": 1,
    "head_channels": None,
    "norm_groups": 8,
    "patch_size": 2,
}
SETTINGS: tuple[dict[str, Any], ...] = ({}, {"activation_checkpointing": True}, {"accumulation_steps": 4})
HEADER = table(
    ("network", "pixels", "images at once", "precision", "training.", "measured, MB", "estimate, MB", "ratio"), []
)
TINY = {"width": 16, "channel_multipliers": (1, 2), "blocks_per_level": 1, "norm_groups": 8, "patch_size": 1}
"""Values of a network that needs few operations, compared with its memory."""


def cases(groups: dict[str, Any], *, tiny: bool) -> Iterator[Row]:
    """Yield the cases: network, size, precision, setting, and the groups of parameters as plain data."""
    if tiny:
        yield case_of(groups, "tiny", TINY, 64, 8, "fp32")
        return
    for name, sizes in SIZES.items():
        for size in sizes:
            model = FOUR_LEVELS if name == "four levels" else _option(name)
            yield case_of(groups, name, model, size, IMAGES[size], "bf16")
            for setting in SETTINGS if name == "pictures" else ({},):
                yield case_of(groups, name, model, size, IMAGES[size], "fp32", **setting)


def case_of(
    groups: dict[str, Any], name: str, model: dict[str, Any], size: int, images: int, precision: str, **setting: Any
) -> Row:
    """Return a case as plain data; ``images`` are computed at once."""
    plain = {name: group.model_dump(mode="json") for name, group in groups.items()}
    plain["model"] |= {**model, "attention_levels": model.get("attention_levels", ()), "class_conditional": False}
    plain["training"] |= {"accumulation_steps": 1, "activation_checkpointing": False, "compile": "none", **setting}
    plain["training"]["batch_size"] = images * plain["training"]["accumulation_steps"]
    words = " ".join(f"{name}={json.dumps(value)}" for name, value in setting.items())
    return {"network": name, "size": size, "precision": precision, "setting": words, "images": images, "groups": plain}


def _option(name: str) -> dict[str, Any]:
    file = ROOT / "conf" / "base" / "groups" / "model" / f"{name}.yml"
    model: dict[str, Any] = yaml.safe_load(file.read_text())["model"]
    return model


def measure(case: Row) -> Row:
    """Measure a case in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training.memory", json.dumps(case)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout
    found: Row = json.loads(output.splitlines()[-1])
    return found


def measure_here(case: Row) -> Row:
    """Train a few steps on random images; return the case with the bytes ``measured`` and the ``estimate``."""
    hardware = choose_hardware("cpu", case["precision"])
    groups = {name: kind.model_validate(case["groups"][name]) for name, kind in GROUPS.items()}
    p, size = groups["training"], case["size"]
    small = groups["model"].model_copy(update=TINY | {"attention_levels": (), "head_channels": None})
    keep_freed_memory()  # as in a run
    _train(groups | {"model": small}, 16, hardware)  # loads torch's code
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _peak()
    _train(groups, size, hardware)
    estimate = training_memory(
        groups["model"],
        (3, size, size),
        0,
        case["images"],
        hardware,
        p.activation_checkpointing,
        optimizer=groups["optimizer"].name,
        batch=p.batch_size,
    )
    return {**case, "measured": _peak() - before, "estimate": estimate}


def _train(groups: dict[str, Any], size: int, hardware: Hardware) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (groups["training"].batch_size, size, size, 3), dtype=np.uint8)
    store, groups = ImageStore(pixels, None, (), Provenance({}, {})), dict(groups)
    images = AugmentedImages(store, groups.pop("augmentation"))
    trainer = Trainer(Run.of(images, **groups), images, store, hardware)
    for step in range(STEPS):
        trainer.step(step, torch.from_numpy(pixels))


def _peak() -> int:
    """Return the highest resident memory of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def line(row: Row) -> str:
    """Return a row of the table in Markdown, in MB of a million bytes."""
    sizes = (f"{row['measured'] / 1e6:,.0f}", f"{row['estimate'] / 1e6:,.0f}")
    words = (row["network"], f"{row['size']}×{row['size']}", str(row["images"]), row["precision"], row["setting"])
    return f"| {' | '.join((*words, *sizes, format(row['estimate'] / row['measured'], '.2f')))} |"


if __name__ == "__main__":
    print(json.dumps(measure_here(json.loads(sys.argv[1]))))
