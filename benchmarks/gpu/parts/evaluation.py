"""The cost of evaluation: features of images and their nearest neighbours, on the CPU and the GPU."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.steps import attempt
from benchmarks.training.results import Row
from benchmarks.training.step import as_in_a_run, random_store

from ddpm_kedro.metrics.classifier import Classifier
from ddpm_kedro.metrics.extractor import FeatureExtractor
from ddpm_kedro.metrics.neighbours import nearest_images

CLASSES = 10


def measure(settings: Settings) -> Iterator[Row]:
    """Yield a row per device for features, then for neighbours."""
    as_in_a_run(settings.device)
    sizes = settings.sizes
    shape = replace(sizes.shape, size=max(sizes.shape.size, 8))  # the classifier's smallest size
    store = random_store(shape, max(sizes.extracted, sizes.searched))
    network = Classifier(shape.channels, CLASSES).eval().requires_grad_(False)
    extractor = FeatureExtractor("classifier", network, store.image_shape, (), store.made_by)
    devices = dict.fromkeys(["cpu", settings.device])
    for device in devices:
        network.to(device)
        run = lambda: extractor(store.images[: sizes.extracted])  # noqa: E731
        yield attempt({"what": "features of the classifier", "device": device}, _seconds(run, sizes.extracted))
    queries, searched = store.images[: sizes.queries], store.images[: sizes.searched]
    for device in devices:
        run = lambda device=device: nearest_images(queries, searched, device)  # noqa: E731
        what = f"neighbours among {sizes.searched:,} images"
        yield attempt({"what": what, "device": device}, _seconds(run, sizes.queries))


def _seconds(run: Callable[[], Any], images: int) -> Callable[[], Row]:
    """Return a function that times the second of two runs; the first one warms up."""

    def timed() -> Row:
        run()
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        return {"images": images, "seconds": seconds, "images_per_second": images / seconds}

    return timed
