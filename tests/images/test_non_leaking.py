"""The non-leaking augmentation: exact where pixels are moved, and labels of what was done."""

import math

import pytest
import torch
from torch import Tensor

from ddpm_kedro.images.augmentation import NUMBERS, OWN, AugmentedImages
from ddpm_kedro.images.non_leaking import KINDS, LABELS, Transformations, warp
from ddpm_kedro.images.store import ImageStore
from tests.conftest import NO_AUGMENTATION, changed, make_store

X_FLIP, Y_FLIP, SHIFT, SCALING, ROTATION, ANISOTROPY, TRANSLATION = range(KINDS)
COUNT = KINDS + 11


def only(kind: int, **values: float) -> Tensor:
    """Return numbers for one image to which one kind is applied; the others would be, but for their probability."""
    numbers = torch.full((COUNT, 1), 0.1)
    numbers[:KINDS] = 0.99
    numbers[kind] = 0.0
    for place, value in values.items():
        numbers[KINDS + int(place.removeprefix("v"))] = value
    return numbers


def image(height: int = 6, width: int = 8) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def transform(x: Tensor, numbers: Tensor) -> tuple[Tensor, list[float]]:
    done = Transformations.sample(numbers, 0.5, (x.shape[2], x.shape[3]))
    return done(x), done.labels[0].tolist()


def test_nothing_is_done_and_labels_are_zero_with_probability_zero() -> None:
    x = torch.rand(300, 2, 5, 7) * 2 - 1
    done = Transformations.sample(torch.rand(COUNT, 300), 0.0, (5, 7))
    assert torch.equal(done(x), x)
    assert done.labels.shape == (300, LABELS)
    assert not done.labels.any()


def test_labels_are_zero_exactly_where_nothing_was_done() -> None:
    x = torch.rand(400, 1, 6, 6) * 2 - 1
    done = Transformations.sample(torch.rand(COUNT, 400), 0.1, (6, 6))
    same = (done(x) == x).flatten(1).all(1)
    unlabelled = ~done.labels.any(dim=1)
    assert same[unlabelled].all()
    assert same.sum() == unlabelled.sum()
    assert 0.4 < unlabelled.float().mean() < 0.68  # 0.95² · 0.9⁵ = 0.53


@pytest.mark.parametrize(("kind", "axis", "label"), [(X_FLIP, 3, 0), (Y_FLIP, 2, 1)])
def test_flips_are_exact(kind: int, axis: int, label: int) -> None:
    out, labels = transform(image(), only(kind))
    assert torch.equal(out, image().flip(axis))
    assert labels == [float(place == label) for place in range(LABELS)]
    untouched, labels = transform(image(), only(kind, v0=0.7, v1=0.7))  # the other half
    assert torch.equal(untouched, image())
    assert not any(labels)


def test_shifts_by_whole_pixels_are_exact_and_reflect_the_edges() -> None:
    x = image(16, 24)
    out, labels = transform(x, only(SHIFT, v2=0.999, v3=0.0))  # 3 to the right, 2 up
    padded = torch.cat([x.flip(3)[..., -3:], x, x.flip(3)[..., :3]], dim=3)
    padded = torch.cat([padded, padded.flip(2)[:, :, :2]], dim=2)
    assert torch.equal(out, padded[:, :, 2:, :24])
    assert labels == [0, 0, 1, -1, *[0] * 7]


def test_an_identity_is_resampled_to_the_image() -> None:
    x, identity = image(32, 48), torch.eye(2, 3)[None]
    torch.testing.assert_close(warp(x, identity), x, rtol=0, atol=1e-5)
    torch.testing.assert_close(warp(x[..., :8, :8], identity), x[..., :8, :8], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("value", "turns"), [(0.75, 1), (0.25, -1), (0.0, 2)])
def test_a_rotation_by_right_angles_moves_pixels(value: float, turns: int) -> None:
    x = image(8, 8)
    out, labels = transform(x, only(ROTATION, v5=value))
    angle = (2 * value - 1) * math.pi
    torch.testing.assert_close(out, x.rot90(-turns, (2, 3)), rtol=0, atol=1e-5)
    assert labels == pytest.approx([0] * 5 + [math.cos(angle) - 1, math.sin(angle)] + [0] * 4, abs=1e-6)


def normal(value: float) -> float:
    """Return the uniform number of a standard normal one."""
    return float(torch.special.ndtr(torch.tensor(value)))


def extent(x: Tensor) -> tuple[float, float, float, float]:
    """Return width, height and centre (x, y) of a bright rectangle on black, from the sums of its values."""
    values = (x[0, 0] + 1) / 2
    places = torch.arange(len(values)) - (len(values) - 1) / 2
    weights = [values.sum(0) / values.sum(), values.sum(1) / values.sum()]
    centres = [float((weight * places).sum()) for weight in weights]
    spread = [math.sqrt(12 * float((w * (places - c) ** 2).sum())) for w, c in zip(weights, centres, strict=True)]
    return spread[0], spread[1], centres[0], centres[1]


@pytest.mark.parametrize(
    ("numbers", "expected", "label"),
    [
        (only(SCALING, v4=normal(2.0)), (2**0.4 * 16, 2**0.4 * 16, 0, 0), (4, [2.0])),
        (only(ANISOTROPY, v6=normal(2.0), v8=0.9), (2**0.4 * 16, 2**-0.4 * 16, 0, 0), (7, [2.0, 0.0])),
        (only(ANISOTROPY, v6=normal(2.0), v7=0.75, v8=0.1), (2**-0.4 * 16, 2**0.4 * 16, 0, 0), (7, [0.0, 2.0])),
        (only(TRANSLATION, v9=normal(0.5), v10=normal(-1.0)), (16, 16, 4, -8), (9, [0.5, -1.0])),
    ],
)
def test_a_square_has_the_size_and_place_of_its_transformation(
    numbers: Tensor, expected: tuple[float, ...], label: tuple[int, list[float]]
) -> None:
    x = torch.full((1, 1, 64, 64), -1.0)
    x[:, :, 24:40, 24:40] = 1
    out, labels = transform(x, numbers)
    assert extent(out) == pytest.approx(expected, abs=0.35)
    first, values = label
    assert labels[first : first + len(values)] == pytest.approx(values, abs=1e-3)
    assert sum(value != 0 for value in labels) <= len(values)


def test_images_of_any_shape_are_rotated_without_shear() -> None:
    """A round spot stays one, also if the image is not square."""
    y, x = torch.meshgrid(torch.arange(48) - 23.5, torch.arange(96) - 47.5, indexing="ij")
    spot = (2 * torch.exp(-(x**2 + y**2) / 32) - 1)[None, None]
    out, _ = transform(spot, only(ROTATION, v5=0.63))
    middle = slice(28, 68)  # farther out, the reflected spot comes in
    torch.testing.assert_close(out[..., middle], spot[..., middle], rtol=0, atol=0.02)


def test_values_stay_in_their_range_and_nothing_is_cut_off() -> None:
    x = torch.rand(200, 1, 8, 8).round() * 2 - 1
    out = Transformations.sample(torch.rand(COUNT, 200), 1.0, (8, 8))(x)
    assert out.isfinite().all()
    assert out.abs().max() <= 1
    white = torch.ones(200, 1, 8, 8)
    torch.testing.assert_close(Transformations.sample(torch.rand(COUNT, 200), 1.0, (8, 8))(white), white)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_the_extreme_random_numbers_give_finite_images(uniform: float) -> None:
    numbers = torch.full((COUNT, 2), uniform)
    numbers[:KINDS] = 0
    done = Transformations.sample(numbers, 1.0, (8, 8))
    assert done.labels.isfinite().all()
    assert done(torch.rand(2, 1, 8, 8)).isfinite().all()


def test_a_batch_has_the_labels_of_its_images_on_its_device(store: ImageStore, device: torch.device) -> None:
    images = AugmentedImages(store, changed(NO_AUGMENTATION, non_leaking=0.3, horizontal_flip=True, crop_padding=1))
    pixels, numbers = torch.from_numpy(store.images), torch.rand(NUMBERS, len(store))
    batch, labels = images.from_pixels(pixels, numbers, device)
    assert labels is not None
    assert batch.device.type == labels.device.type == device.type
    assert torch.equal(labels.cpu(), Transformations.sample(numbers[OWN:], 0.3, (8, 8)).labels)
    on_cpu, _ = images.from_pixels(pixels, numbers)
    torch.testing.assert_close(batch.cpu(), on_cpu, rtol=0, atol=1e-4)
    plain, nothing = AugmentedImages(store, NO_AUGMENTATION).from_pixels(pixels, numbers, device)
    assert nothing is None
    assert not torch.equal(plain, batch)


def test_the_other_augmentations_do_not_depend_on_it() -> None:
    store, numbers = make_store(), torch.rand(NUMBERS, 40)
    flips = changed(NO_AUGMENTATION, horizontal_flip=True)
    pixels = torch.from_numpy(store.images)
    plain, _ = AugmentedImages(store, flips).from_pixels(pixels, numbers)
    both, labels = AugmentedImages(store, changed(flips, non_leaking=0.1)).from_pixels(pixels, numbers)
    assert labels is not None
    untouched = ~labels.any(dim=1)
    assert untouched.any()
    assert torch.equal(plain[untouched], both[untouched])
