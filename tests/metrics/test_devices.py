"""Features and nearest images are the same on every device."""

import numpy as np
import pytest
import torch

from ddpm_kedro.metrics.classifier import Classifier
from ddpm_kedro.metrics.extractor import FeatureExtractor
from ddpm_kedro.metrics.neighbours import nearest_images
from tests.conftest import MADE_BY, make_store


def test_features_are_computed_on_the_device_of_the_network(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpm_kedro.metrics.extractor.BATCH", 7)
    store = make_store(20)
    extractor = FeatureExtractor("classifier", Classifier(1, 3).eval(), store.image_shape, store.class_names, MADE_BY)
    on_cpu = extractor(store.images)
    devices: list[torch.device] = []
    extractor.network.to(device).register_forward_hook(lambda _, inputs, __: devices.append(inputs[0].device))
    for found, expected in zip(extractor(store.images), on_cpu, strict=True):
        assert found.device.type == "cpu"
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert {each.type for each in devices} == {device.type}


def test_nearest_images_are_found_on_every_device(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bright images that differ in a single pixel: coarse products could not distinguish them."""
    monkeypatch.setattr("ddpm_kedro.metrics.neighbours.CHUNK", 16)
    if device.type == "cuda":
        monkeypatch.setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32")
    images = np.random.default_rng(0).integers(200, 256, (40, 16, 16, 3)).astype(np.uint8)
    images[1::2] = images[::2]
    images[1::2, 0, 0, 0] -= 100
    found = nearest_images(images, images, device)
    assert found.indices.device.type == found.distances.device.type == "cpu"
    assert found.indices.tolist() == list(range(40))
    assert found.distances.max() < 0.2  # of grey levels
