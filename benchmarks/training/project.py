"""The project with its defaults: its parameters, its images and its evaluation classifier."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.metrics.extractor import FeatureExtractor
from ddpm_kedro.parameters import SamplingParameters

GROUPS = ("model", "diffusion", "augmentation", "optimizer", "training")
IMAGES = ("training_images", "holdout_images", "feature_extractor")


@dataclass(frozen=True)
class Digits:
    """Parameters, images and feature extractor after ``kedro run``."""

    groups: dict[str, Any]
    training: ImageStore
    holdout: ImageStore
    extractor: FeatureExtractor

    @classmethod
    def of(cls, root: Path) -> "Digits":
        """Load them from the project's catalog."""
        loaded = load(root, IMAGES)
        return cls(parameters(root), *(loaded[name] for name in IMAGES))


def parameters(root: Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Load the default parameter groups of training, with changes by dotted names."""
    found = load(root, [f"params:{group}" for group in GROUPS], changes)
    return {name.removeprefix("params:"): group for name, group in found.items()}


def sampling(root: Path) -> SamplingParameters:
    """Load the default parameters of sampling."""
    group: SamplingParameters = load(root, ["params:sampling"])["params:sampling"]
    return group


def load(root: Path, names: Iterable[str], changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Load entries of the catalog of a project, with changed parameters by dotted names."""
    from kedro.framework.project import settings  # noqa: PLC0415  the GPU kit has no Kedro
    from kedro.framework.startup import bootstrap_project  # noqa: PLC0415

    nested: dict[str, Any] = {}
    for name, value in (changes or {}).items():
        group, key = name.split(".")
        nested.setdefault(group, {})[key] = value
    bootstrap_project(root)
    with settings.SESSION_CLASS.create(project_path=root, runtime_params=nested) as session:
        catalog = session.load_context().catalog
        return {name: catalog.load(name) for name in names}
