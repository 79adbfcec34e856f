"""Holdout, augmentation, pixels and grids."""

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_kedro.errors import UserError
from ddpm_kedro.images.augmentation import OWN, AugmentedImages, augment
from ddpm_kedro.images.pixels import read_pixels, to_float, to_uint8
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.ingestion.splitting import stratified_holdout
from ddpm_kedro.reporting.grid import labelled_grid, to_pil
from tests.conftest import NO_AUGMENTATION, changed, make_store


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers(images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return torch.rand(OWN, len(images), generator=generator(seed))


def test_holdout_has_the_same_share_of_every_class() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    kept, held = stratified_holdout(labels, 160, 0.1, seed=0)
    assert np.bincount(labels[held]).tolist() == [10, 5, 1]
    assert sorted([*kept, *held]) == list(range(160))
    assert not np.array_equal(held, stratified_holdout(labels, 160, 0.1, seed=1)[1])
    assert np.array_equal(held, stratified_holdout(labels, 160, 0.1, seed=0)[1])


def test_each_class_keeps_a_training_image_in_a_large_holdout() -> None:
    labels = np.array([0] * 10 + [1])
    kept, held = stratified_holdout(labels, 11, 0.6, seed=0)
    assert np.bincount(labels[kept]).tolist() == [4, 1]
    assert np.bincount(labels[held], minlength=2).tolist() == [6, 0]


def test_holdout_of_images_without_labels() -> None:
    kept, held = stratified_holdout(None, 20, 0.25, seed=0)
    assert (len(kept), len(held)) == (15, 5)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_an_empty_side_is_an_error(fraction: float) -> None:
    with pytest.raises(UserError, match=r"images.holdout_fraction = 0\.\d+ holds out \d+ of 10"):
        stratified_holdout(np.zeros(10, dtype=np.int64), 10, fraction, seed=0)


def test_without_augmentation_images_are_unchanged() -> None:
    images = torch.rand(5, 3, 6, 7)
    assert torch.equal(
        augment(
            images,
            NO_AUGMENTATION,
            numbers(
                images,
            ),
        ),
        images,
    )


@pytest.mark.parametrize(("flip", "axis"), [("horizontal_flip", -1), ("vertical_flip", -2)])
def test_flips_apply_to_about_half_of_the_images(flip: str, axis: int, device: torch.device) -> None:
    images = torch.rand(400, 1, 4, 5, device=device)
    out = augment(
        images,
        changed(NO_AUGMENTATION, **{flip: True}),
        numbers(
            images,
        ),
    )
    turned = (out == images.flip(axis)).flatten(1).all(1)
    untouched = (out == images).flatten(1).all(1)
    assert (turned ^ untouched).all()
    assert 150 < int(turned.sum()) < 250


def test_crops_shift_each_image_independently_within_the_padding(device: torch.device) -> None:
    base = torch.arange(36.0, device=device).view(1, 1, 6, 6)
    out = augment(
        base.expand(300, -1, -1, -1),
        changed(NO_AUGMENTATION, crop_padding=2),
        numbers(
            base.expand(300, -1, -1, -1),
        ),
    )
    padded = torch.nn.functional.pad(base, (2, 2, 2, 2), mode="replicate")[0, 0]
    windows = {tuple(padded[y : y + 6, x : x + 6].flatten().tolist()): (y, x) for y in range(5) for x in range(5)}
    shifts = {windows[tuple(image.flatten().tolist())] for image in out}
    assert len(shifts) == 25


def test_a_change_does_not_depend_on_other_augmentations() -> None:
    images = torch.rand(50, 1, 6, 6)
    alone = augment(images, changed(NO_AUGMENTATION, vertical_flip=True), numbers(images, 3))
    both = augment(images, changed(NO_AUGMENTATION, vertical_flip=True, horizontal_flip=True), numbers(images, 3))
    again = augment(images, changed(NO_AUGMENTATION, vertical_flip=True), numbers(images, 3))
    assert torch.equal(alone, again)
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a, b in zip(alone, both, strict=True))
    assert not torch.equal(alone, augment(images, changed(NO_AUGMENTATION, vertical_flip=True), numbers(images, 4)))


def test_batches_are_floats_in_range_and_come_from_the_store(store: ImageStore, device: torch.device) -> None:
    images = AugmentedImages(store, NO_AUGMENTATION)
    indices = torch.tensor([5, 0, 39])
    batch = images.batch(indices, generator(), device)
    assert batch.shape == (3, 1, 8, 8)
    assert batch.dtype == torch.float32
    assert batch.device.type == device.type
    assert np.array_equal(to_uint8(batch).cpu().numpy(), store.images[[5, 0, 39]])
    assert images.labels(indices).tolist() == store.labels[[5, 0, 39]].tolist()
    assert AugmentedImages(make_store(classes=0), NO_AUGMENTATION).labels(indices) is None


def test_black_and_white_are_the_ends_of_the_range() -> None:
    store = ImageStore(np.array([0, 255], dtype=np.uint8).reshape(2, 1, 1, 1), None, (), "x")
    assert to_float(read_pixels(store, torch.arange(2))).flatten().tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_image_files_keep_their_pixels(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels)).astype(np.uint8)
    assert np.array_equal(np.asarray(to_pil(image)).reshape(image.shape), image)


def test_an_image_of_two_channels_is_an_error() -> None:
    with pytest.raises(UserError, match="1, 3 or 4 channels, not 2"):
        to_pil(np.zeros((4, 4, 2), dtype=np.uint8))


def test_a_grid_has_a_column_for_every_class_under_its_name() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2])
    images = np.stack([np.full((28, 28, 1), 80 * label + 10, dtype=np.uint8) for label in labels])
    grid = np.asarray(labelled_grid(images, labels, ["zero", "one", "two"]).convert("L"))
    assert grid.shape == (18 + 2 * 60 + 4, 3 * 60 + 4)
    for column, brightness in enumerate((10, 90, 170)):
        tiles = grid[18 + 4 :, 4 + column * 60 : 60 + column * 60]
        assert (tiles[:56] == brightness).all()
        assert (tiles[60:116] == brightness).all()
        assert grid[:18, column * 60 : (column + 1) * 60].min() < 100  # the name


def test_a_grid_without_labels_is_a_square_in_reading_order() -> None:
    images = np.stack([np.full((64, 64, 3), 20 * i, dtype=np.uint8) for i in range(9)])
    grid = np.asarray(labelled_grid(images))
    assert grid.shape == (3 * 68 + 4, 3 * 68 + 4, 3)
    assert [int(grid[10, 10 + 68 * i, 0]) for i in range(3)] == [0, 20, 40]
    assert int(grid[10 + 68, 10, 0]) == 60


def test_few_classes_of_many_images_have_several_columns_each() -> None:
    labels = np.arange(50) % 2
    images = np.stack([np.full((64, 64, 1), number, dtype=np.uint8) for number in range(50)])
    grid = np.asarray(labelled_grid(images, labels, ["even", "odd"]).convert("L"))
    assert grid.shape == (18 + 7 * 68 + 4, 2 * 4 * 68 + 4)
    seen = grid[18 + 10 :: 68, 10::68].tolist()
    assert seen[0] == [0, 2, 4, 6, 1, 3, 5, 7]
    assert seen[6] == [48, 255, 255, 255, 49, 255, 255, 255]
    alone = labelled_grid(images, np.zeros(50, dtype=np.int64), ["a name that is long enough for one column"])
    assert (alone.width, alone.height) == (8 * 68 + 4, 18 + 7 * 68 + 4)


def test_long_names_and_uneven_classes_fit() -> None:
    labels = np.array([0, 0, 1])
    grid = labelled_grid(np.zeros((3, 8, 8, 1), dtype=np.uint8), labels, ["a very long name indeed", "b"])
    assert isinstance(grid, Image.Image)
    assert grid.width == 2 * 60 + 4


def test_a_name_that_is_a_little_too_long_is_written_smaller_not_cut() -> None:
    images, labels = np.zeros((2, 32, 32, 1), dtype=np.uint8), np.array([0, 1])
    heading = np.asarray(labelled_grid(images, labels, ["automobile", "automobil"]))[:18]
    whole, cut = heading[:, 4:68], heading[:, 72:136]
    assert (whole != cut).any()
    assert (whole < 128).any(axis=(0, 2)).argmax() > 0  # nothing at the edge
