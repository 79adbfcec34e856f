"""What a trained model does beside drawing: variations, inpainting, interpolation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kedro.io import DatasetError
from PIL import Image

from ddpm_kedro.datasets.figure import OptionalFigureDataset
from ddpm_kedro.diffusion import slerp
from ddpm_kedro.errors import UserError
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.models import TrainedModel, UNet
from ddpm_kedro.parameters import ImageToImageParameters, InpaintingParameters, InterpolationParameters
from ddpm_kedro.pipelines.image_to_image.nodes import vary_images
from ddpm_kedro.pipelines.inpainting.nodes import fill_in
from ddpm_kedro.pipelines.interpolation.nodes import interpolate_seeds
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.sampling.inputs import mask_of, pictures_to_change
from tests.conftest import DIFFUSION, MODEL, SAMPLING, changed, make_store, randomise

TILE, STEP = 56, 60  # pixels of an enlarged image of 8, and from one to the next
SIDE = 80


@pytest.fixture
def model(store: ImageStore) -> TrainedModel:
    network = randomise(UNet(MODEL, 1, 3), 0.1).eval()
    groups = {"model": MODEL.model_dump(mode="json"), "diffusion": DIFFUSION.model_dump(mode="json")}
    return TrainedModel(network, Provenance(groups, {"training_images": "x"}), (1, 8, 8), store.class_names, 16)


def tile(picture: Image.Image, row: int, column: int) -> np.ndarray[Any, Any]:
    """One of the images of a picture, at its own size."""
    left, top = SIDE + column * STEP, 4 + row * STEP
    return np.asarray(picture.convert("L").crop((left, top, left + TILE, top + TILE)).resize((8, 8), 0)).astype(int)


def test_the_less_a_picture_is_noised_the_more_it_stays(model: TrainedModel, store: ImageStore) -> None:
    parameters = ImageToImageParameters(num_images=3, strengths=(0.05, 1.0))
    picture = vary_images(model, store, None, changed(SAMPLING, num_inference_steps=40), parameters)
    for column, index in enumerate((0, 13, 26)):
        given = tile(picture, 0, column)
        assert np.array_equal(given, store.images[index, :, :, 0])
        little, much = (np.abs(tile(picture, row, column) - given).mean() for row in (1, 2))
        assert 0 < little < much


def test_only_what_the_mask_leaves_open_is_drawn_anew(model: TrainedModel, store: ImageStore) -> None:
    parameters = InpaintingParameters(num_images=2, box=(0.5, 0.25, 1.0, 1.0), variants=2)
    picture = fill_in(model, store, None, None, SAMPLING, parameters)
    for column in range(2):
        given, kept, first, second = (tile(picture, row, column) for row in range(4))
        assert (kept[4:, 2:] == 128).all()  # grey, where nothing is known
        for filled in (kept, first, second):
            assert np.array_equal(filled[:4], given[:4])
            assert np.array_equal(filled[4:, :2], given[4:, :2])
        assert not np.array_equal(first, second)


def test_an_own_mask_and_picture_are_taken(model: TrainedModel, store: ImageStore) -> None:
    own = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).convert("RGB")
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 0] = 255
    parameters = InpaintingParameters(num_images=2, box=(0.5, 0.0, 1.0, 1.0), variants=1)
    picture = fill_in(model, store, own, Image.fromarray(mask), changed(SAMPLING, label="class 1"), parameters)
    filled = tile(picture, 2, 1)
    assert np.array_equal(filled[:, 1:], np.asarray(own.convert("L"))[:, 1:])
    assert not np.array_equal(filled[:, 0], np.asarray(own.convert("L"))[:, 0])
    assert pictures_to_change(model, own, store, 2, "class 1")[1].tolist() == [1, 1]
    assert pictures_to_change(model, own, store, 2, None)[1] is None


def test_pictures_and_masks_that_do_not_fit(model: TrainedModel, store: ImageStore) -> None:
    with pytest.raises(UserError, match=r"mask is 9×8 pixels, but the model draws 8×8"):
        mask_of(model, Image.new("L", (9, 8), 255), (0, 0, 1, 1))
    with pytest.raises(UserError, match="mask keeps nothing"):
        mask_of(model, None, (0, 0, 1, 1))
    with pytest.raises(UserError, match="mask keeps everything"):
        mask_of(model, Image.new("L", (8, 8)), (0, 0, 1, 1))
    with pytest.raises(UserError, match=r"given picture is 8×10 pixels, but the model draws 8×8"):
        pictures_to_change(model, Image.new("RGB", (8, 10)), store, 1, None)
    with pytest.raises(UserError, match=r"hold-out's images are \(3, 8, 8\), but the model draws \(1, 8, 8\)"):
        pictures_to_change(model, None, make_store(channels=3), 1, None)


def test_interpolation_begins_and_ends_at_the_pictures_of_its_seeds(model: TrainedModel) -> None:
    wide, narrow = (
        interpolate_seeds(model, SAMPLING, InterpolationParameters(num_images=2, seeds=(0, 1), frames=frames))
        for frames in (5, 2)
    )
    for row in range(2):
        assert np.array_equal(tile(wide, row, 0), tile(narrow, row, 0))
        assert np.array_equal(tile(wide, row, 4), tile(narrow, row, 1))
        steps = [np.abs(tile(wide, row, i) - tile(wide, row, i + 1)).mean() for i in range(4)]
        assert max(steps) < np.abs(tile(wide, row, 0) - tile(wide, row, 4)).mean()
    swapped = interpolate_seeds(model, SAMPLING, InterpolationParameters(num_images=1, seeds=(1, 0), frames=2))
    assert np.array_equal(tile(swapped, 0, 0), tile(narrow, 0, 1))


@pytest.mark.parametrize("changes", [{"sampler": "ddpm"}, {"ddim_eta": 0.5}])
def test_interpolation_needs_a_sampler_without_noise(changes: dict[str, Any], model: TrainedModel) -> None:
    with pytest.raises(UserError, match="adds noise on the way"):
        interpolate_seeds(
            model, changed(SAMPLING, **changes), InterpolationParameters(num_images=1, seeds=(0, 1), frames=2)
        )


def test_what_lies_between_two_noises_is_as_large_as_noise() -> None:
    a, b = torch.randn(3, 1, 32, 32), torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    assert float(slerp(a, b, 0.5).std()) == pytest.approx(1, abs=0.03)  # 0.71 along a straight line
    torch.testing.assert_close(slerp(a, a, 0.3), a, rtol=1e-3, atol=1e-3)


def test_a_picture_that_nobody_has_given(tmp_path: Path) -> None:
    dataset = OptionalFigureDataset(filepath=str(tmp_path / "given.png"))
    assert dataset.load() is None
    dataset.save(Image.new("L", (3, 2)))
    assert dataset.load().size == (3, 2)
    (tmp_path / "given.png").write_bytes(b"no picture")
    with pytest.raises((UserError, DatasetError), match="cannot be read as an image"):
        dataset.load()


def test_an_empty_box_is_refused() -> None:
    with pytest.raises(ValueError, match=r"box = \[0.5, 0.0, 0.5, 1.0\] is empty"):
        InpaintingParameters(num_images=1, box=(0.5, 0.0, 0.5, 1.0), variants=1)
