"""A small trained model for the nodes that use one."""

import pytest

from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.models import RunRecord, TrainedModel, UNet
from ddpm_kedro.provenance import Provenance
from tests.conftest import DIFFUSION, MODEL, randomise


@pytest.fixture
def model(store: ImageStore) -> TrainedModel:
    network = randomise(UNet(MODEL, 1, 3), 0.1).eval()
    groups = {"model": MODEL.model_dump(mode="json"), "diffusion": DIFFUSION.model_dump(mode="json")}
    return TrainedModel(
        network, RunRecord(Provenance(groups, {"training_images": "x"}), (1, 8, 8), store.class_names), 16
    )
