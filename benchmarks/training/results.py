"""Results as JSON, with the machine they were measured on."""

import json
import os
import platform
import re
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ddpm_kedro.hardware import NATIVE_BF16

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "data" / "benchmarks"
PACKAGES = ("torch", "diffusers", "denoising-diffusion-pytorch")

Row = dict[str, Any]


def machine(device: str = "cpu") -> dict[str, Any]:
    """Describe the processor, and the GPU if it was used."""
    file = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", file.read_text(), re.MULTILINE) if file.exists() else []
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "native_bf16": NATIVE_BF16[device](),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the compared packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def load(part: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Load the latest results of a part; empty if there are none."""
    file = folder / f"{part}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def save(part: str, command: str, found: dict[str, Any], device: str = "cpu", folder: Path = FOLDER) -> None:
    """Save results with machine, versions, date and command."""
    around = {"machine": machine(device), "versions": versions(), "date": date.today().isoformat(), "command": command}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{part}.json"
    file.with_suffix(".part").write_text(json.dumps(around | found, indent=1))
    file.with_suffix(".part").replace(file)


def merged(old: list[Row], new: list[Row], identity: tuple[str, ...]) -> list[Row]:
    """Return old and new rows; a new row replaces an old one with equal values of ``identity``."""
    rows = {tuple(row.get(name) for name in identity): row for row in [*old, *new]}
    return list(rows.values())
