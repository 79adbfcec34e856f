"""The project with its defaults: its parameters, its images and its evaluation classifier."""

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
        loaded = _load(root, IMAGES)
        return cls(parameters(root), *(loaded[name] for name in IMAGES))


def parameters(root: Path) -> dict[str, Any]:
    """Load the default parameter groups of training."""
    return {name.removeprefix("params:"): group for name, group in _load(root, [f"params:{g}" for g in GROUPS]).items()}


def sampling(root: Path) -> SamplingParameters:
    """Load the default parameters of sampling."""
    group: SamplingParameters = _load(root, ["params:sampling"])["params:sampling"]
    return group


def _load(root: Path, names: Any) -> dict[str, Any]:
    from kedro.framework.project import settings  # noqa: PLC0415  the GPU kit has no Kedro
    from kedro.framework.startup import bootstrap_project  # noqa: PLC0415

    bootstrap_project(root)
    with settings.SESSION_CLASS.create(project_path=root) as session:
        catalog = session.load_context().catalog
        return {name: catalog.load(name) for name in names}
