"""The networks of the evaluation's own feature extractors, and how they are fitted."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.metrics.backbone import reduce_images, reduced_size
from ddpm_kedro.metrics.classifier import Classifier, fit_classifier
from ddpm_kedro.metrics.extractor import build_extractor_network
from ddpm_kedro.metrics.simclr import TEMPERATURE, SimCLR, fit_simclr, nt_xent, random_views
from tests.conftest import EVALUATION, changed, make_store


@pytest.mark.parametrize(
    ("size", "expected"),
    [((28, 28), (28, 28)), ((64, 64), (64, 64)), ((128, 128), (64, 64)), ((96, 256), (24, 64)), ((9, 640), (8, 64))],
)
def test_large_images_are_reduced_to_64_pixels(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert reduced_size(*size) == expected
    assert reduce_images(torch.zeros(1, 3, *size)).shape[2:] == expected


def test_a_reduced_image_is_antialiased_and_gives_the_same_features() -> None:
    stripes = torch.tensor([-1.0, 1.0]).repeat(64).expand(2, 3, 128, 128)
    assert reduce_images(stripes).abs().max() < 0.3
    network, images = SimCLR(3).eval(), torch.rand(2, 3, 128, 128) * 2 - 1
    assert torch.equal(network(images)[0], network(reduce_images(images))[0])


@pytest.mark.parametrize(("classes", "kind"), [(0, SimCLR), (1, SimCLR), (2, Classifier), (10, Classifier)])
def test_the_cost_of_the_network_does_not_grow_beyond_64_pixels(classes: int, kind: type) -> None:
    flops = {}
    for size in (32, 64, 256):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            network = build_extractor_network((3, size, size), classes)
            assert type(network) is kind
            network(torch.zeros(1, 3, size, size))
        flops[size] = counter.get_total_flops()
    assert flops[32] < flops[64] == flops[256] < 100e6


def test_fitting_on_a_device_gives_features_of_mean_square_one(device: torch.device) -> None:
    for store, fit in ((make_store(), fit_classifier), (make_store(classes=0), fit_simclr)):
        network = fit(store, changed(EVALUATION, device=device.type))
        assert next(network.parameters()).device.type == device.type
        images = torch.from_numpy(store.images).permute(0, 3, 1, 2).float() / 127.5 - 1
        assert network(images.to(device))[0].square().mean().item() == pytest.approx(1, rel=1e-3)


def test_fitting_without_labels_is_repeatable_and_leaves_the_global_generator_alone(store: ImageStore) -> None:
    before = torch.random.get_rng_state()
    one, two = (fit_simclr(images, EVALUATION) for images in (store, replace(store, labels=None, class_names=())))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.mark.parametrize("count", [2, 3, 10])
def test_few_images_are_fitted_without_labels(count: int) -> None:
    network = fit_simclr(make_store(count, classes=0), changed(EVALUATION, fit_images=7, fit_batch_size=16))
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_the_loss_is_the_cross_entropy_of_finding_the_other_view() -> None:
    projections = torch.randn(6, 5)
    z = F.normalize(projections).double()
    expected = 0.0
    for i in range(6):
        others = [math.exp(float(z[i] @ z[j]) / TEMPERATURE) for j in range(6) if j != i]
        expected -= math.log(math.exp(float(z[i] @ z[(i + 3) % 6]) / TEMPERATURE) / sum(others)) / 6
    assert nt_xent(projections).item() == pytest.approx(expected, rel=1e-5)


def test_views_of_an_image_differ_and_show_the_same_image() -> None:
    """A view keeps an image's own pattern: its correlation with the image exceeds its correlation with others."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    patterns = torch.stack([y, -y, (y**2 + x**2) - 0.7, 0.7 - (y**2 + x**2)])[:, None].expand(-1, 3, -1, -1)
    images = patterns.repeat_interleave(20, 0).clamp(-1, 1)
    views, again = (random_views(images, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(views, again)
    assert views.abs().max() <= 1
    assert len({tuple(view.flatten().tolist()) for view in views}) == len(views)
    centred = [F.normalize((each - each.mean((1, 2, 3), keepdim=True)).flatten(1)) for each in (views, patterns)]
    assert ((centred[0] @ centred[1].T).argmax(1) == torch.arange(4).repeat_interleave(20)).float().mean() > 0.9


def test_flips_and_colours_of_views_are_even() -> None:
    ramp = torch.linspace(-1, 1, 16).expand(400, 3, 16, 16)
    views = random_views(ramp, torch.Generator().manual_seed(0))
    rising = (views[..., -1] > views[..., 0]).float().mean().item()
    assert 0.4 < rising < 0.6
    assert abs(views.mean().item()) < 0.05
    assert views.mean((2, 3)).std(1).mean() > 0.02  # channels change independently
