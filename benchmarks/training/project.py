"""What this project is as it ships: its parameters, its images, and what judges them."""

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
    """After ``kedro run``."""

    groups: dict[str, Any]
    training: ImageStore
    holdout: ImageStore
    extractor: FeatureExtractor

    @classmethod
    def of(cls, root: Path) -> "Digits":
        """Those of the project's own catalog."""
        held = _load(root, IMAGES)
        return cls(parameters(root), *(held[name] for name in IMAGES))


def parameters(root: Path) -> dict[str, Any]:
    """The groups that shape a training, as they are by default."""
    return {name.removeprefix("params:"): held for name, held in _load(root, [f"params:{g}" for g in GROUPS]).items()}


def sampling(root: Path) -> SamplingParameters:
    """How images are drawn, by default."""
    held: SamplingParameters = _load(root, ["params:sampling"])["params:sampling"]
    return held


def _load(root: Path, names: Any) -> dict[str, Any]:
    from kedro.framework.project import settings  # noqa: PLC0415  the GPU kit does without Kedro
    from kedro.framework.startup import bootstrap_project  # noqa: PLC0415

    bootstrap_project(root)
    with settings.SESSION_CLASS.create(project_path=root) as session:
        catalog = session.load_context().catalog
        return {name: catalog.load(name) for name in names}
