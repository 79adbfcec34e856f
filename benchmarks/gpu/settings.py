"""The settings of the parts: the device and the sizes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from benchmarks.gpu.environment import ROOT
from benchmarks.training.networks import Shape

from ddpm_kedro.parameters import Parameters
from ddpm_kedro.parameters.base import Device

GROUPS = ("model", "diffusion", "augmentation", "optimizer", "training", "sampling", "evaluation")


@dataclass(frozen=True)
class Sizes:
    """The sizes of the parts' work.

    Attributes:
        shape: of the U-Net whose step is measured.
        batches: batch sizes of our step.
        compared: batch at which projects are compared.
        alone: batch so small that the GPU waits for the host.
        rounds: timings per row; their median is the result.
        warmup: steps before the first timing.
        product: (M, K, N) of the matrix product that is the ceiling.
        copied: bytes of the copy that measures the memory's bandwidth.
        convolution_seconds: least duration of each timing of a convolution.
        sampling: batches of sampling.
        sampling_steps: of each sampler.
        extracted: images whose features are computed.
        queries, searched: number of images, and of training images to search for their neighbours.
        train_seconds: duration of training.
        report_interval: images seen between two validation losses of the training.
        fit_images: images that the evaluation classifier sees while it is fitted.
        samples: images that are generated and scored.
        resumed_steps: steps of the training that is stopped half way and resumed.
        test_workers: processes that run the tests.
    """

    shape: Shape
    batches: tuple[int, ...]
    compared: int
    alone: int
    rounds: int
    warmup: int
    product: tuple[int, int, int]
    copied: int
    convolution_seconds: float
    sampling: tuple[int, ...]
    sampling_steps: int
    extracted: int
    queries: int
    searched: int
    train_seconds: float
    report_interval: int
    fit_images: int
    samples: int
    resumed_steps: int
    test_workers: int


FULL = Sizes(
    shape=Shape(),
    batches=(128, 256, 512),
    compared=128,
    alone=8,
    rounds=3,
    warmup=5,
    product=(8192, 8192, 8192),
    copied=2**32,
    convolution_seconds=0.03,
    sampling=(1, 64, 256),
    sampling_steps=10,
    extracted=5_000,
    queries=1_000,
    searched=17_000,
    train_seconds=100,
    report_interval=40_000,
    fit_images=30_000,
    samples=2_000,
    resumed_steps=40,
    test_workers=8,
)
TINY = Sizes(
    shape=Shape(width=8, multipliers=(1,), attention=(0,), blocks=1, groups=4, size=8),
    batches=(2, 4),
    compared=2,
    alone=1,
    rounds=1,
    warmup=1,
    product=(64, 64, 64),
    copied=2**20,
    convolution_seconds=1e-4,
    sampling=(1, 2),
    sampling_steps=2,
    extracted=20,
    queries=10,
    searched=40,
    train_seconds=1,
    report_interval=64,
    fit_images=128,
    samples=40,
    resumed_steps=4,
    test_workers=2,
)
"""Runs everything in seconds; the results mean nothing."""


@dataclass(frozen=True)
class Settings:
    """The settings of a part.

    Attributes:
        device: cuda, or cpu to try the kit.
        tiny: whether everything is as small as possible.
        images: the image pack; None if a tiny run makes its own images.
        out: folder of the results.
        prepare: whether the part only fills the compiler's caches.
    """

    device: Device
    tiny: bool
    images: Path | None
    out: Path
    prepare: bool = False

    @property
    def sizes(self) -> Sizes:
        """Return the sizes."""
        return TINY if self.tiny else FULL


def parameters(use: Mapping[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """Return checked parameter groups by name, read from conf/base without Kedro.

    Args:
        use: options by group, in place of the default ones, such as ``{"optimizer": "adam"}``.
        changes: values by ``<group>__<name>``, such as ``optimizer__lr=8e-4``.
    """
    base = yaml.safe_load((ROOT / "conf/base/parameters.yml").read_text())
    options = base["use"] | dict(use or {})
    found = {}
    for group in GROUPS:
        values = base.get(group, {})
        if options.get(group):
            values = (
                values | yaml.safe_load((ROOT / f"conf/base/groups/{group}/{options[group]}.yml").read_text())[group]
            )
        prefix = f"{group}__"
        values |= {name.removeprefix(prefix): value for name, value in changes.items() if name.startswith(prefix)}
        kind: Any = Parameters.model_fields[group].annotation
        found[group] = kind.model_validate(values)
    return found
