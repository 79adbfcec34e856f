"""Tasks of a trained model: variations, inpainting, interpolation."""

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
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import ImageToImageParameters, InpaintingParameters, InterpolationParameters
from ddpm_kedro.pipelines.image_to_image.nodes import vary_images
from ddpm_kedro.pipelines.inpainting.nodes import fill_in
from ddpm_kedro.pipelines.interpolation.nodes import interpolate_seeds
from ddpm_kedro.sampling.inputs import inpainting_mask, input_images
from tests.conftest import SAMPLING, changed, make_store

TILE, STEP = 56, 60  # side of an enlarged image of 8 pixels, and distance between two
SIDE = 80


def tile(figure: Image.Image, row: int, column: int) -> np.ndarray[Any, Any]:
    """Return one image of a figure, at its original size."""
    left, top = SIDE + column * STEP, 4 + row * STEP
    return np.asarray(figure.convert("L").crop((left, top, left + TILE, top + TILE)).resize((8, 8), 0)).astype(int)


def test_variations_of_low_strength_stay_closer_to_the_input(model: TrainedModel, store: ImageStore) -> None:
    parameters = ImageToImageParameters(num_images=3, strengths=(0.05, 1.0))
    figure = vary_images(model, store, None, changed(SAMPLING, num_inference_steps=40), parameters)
    for column, index in enumerate((0, 13, 26)):
        original = tile(figure, 0, column)
        assert np.array_equal(original, store.images[index, :, :, 0])
        little, much = (np.abs(tile(figure, row, column) - original).mean() for row in (1, 2))
        assert 0 < little < much


def test_inpainting_generates_only_the_masked_part(model: TrainedModel, store: ImageStore) -> None:
    parameters = InpaintingParameters(num_images=2, box=(0.5, 0.25, 1.0, 1.0), variants=2)
    figure = fill_in(model, store, None, None, SAMPLING, parameters)
    for column in range(2):
        original, kept, first, second = (tile(figure, row, column) for row in range(4))
        assert (kept[4:, 2:] == 128).all()  # grey: to be generated
        for filled in (kept, first, second):
            assert np.array_equal(filled[:4], original[:4])
            assert np.array_equal(filled[4:, :2], original[4:, :2])
        assert not np.array_equal(first, second)


def test_inpainting_uses_the_given_image_and_mask(model: TrainedModel, store: ImageStore) -> None:
    own = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).convert("RGB")
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 0] = 255
    parameters = InpaintingParameters(num_images=2, box=(0.5, 0.0, 1.0, 1.0), variants=1)
    figure = fill_in(model, store, own, Image.fromarray(mask), changed(SAMPLING, label="class 1"), parameters)
    filled = tile(figure, 2, 1)
    assert np.array_equal(filled[:, 1:], np.asarray(own.convert("L"))[:, 1:])
    assert not np.array_equal(filled[:, 0], np.asarray(own.convert("L"))[:, 0])
    assert input_images(model, own, store, 2, "class 1")[1].tolist() == [1, 1]
    assert input_images(model, own, store, 2, None)[1] is None


def test_images_and_masks_of_another_size_are_errors(model: TrainedModel, store: ImageStore) -> None:
    with pytest.raises(UserError, match=r"mask is 9×8 pixels, but the model generates 8×8"):
        inpainting_mask(model, Image.new("L", (9, 8), 255), (0, 0, 1, 1))
    with pytest.raises(UserError, match="mask keeps nothing"):
        inpainting_mask(model, None, (0, 0, 1, 1))
    with pytest.raises(UserError, match="mask keeps everything"):
        inpainting_mask(model, Image.new("L", (8, 8)), (0, 0, 1, 1))
    with pytest.raises(UserError, match=r"given image is 8×10 pixels, but the model generates 8×8"):
        input_images(model, Image.new("RGB", (8, 10)), store, 1, None)
    with pytest.raises(UserError, match=r"holdout images are \(3, 8, 8\), but the model generates \(1, 8, 8\)"):
        input_images(model, None, make_store(channels=3), 1, None)


def test_interpolation_starts_and_ends_at_the_images_of_its_seeds(model: TrainedModel) -> None:
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
def test_interpolation_with_a_stochastic_sampler_is_an_error(changes: dict[str, Any], model: TrainedModel) -> None:
    with pytest.raises(UserError, match=r"adds noise at each step.*ddim, dpm_solver\+\+, heun"):
        interpolate_seeds(
            model, changed(SAMPLING, **changes), InterpolationParameters(num_images=1, seeds=(0, 1), frames=2)
        )


def test_slerp_keeps_the_deviation_of_noise() -> None:
    a, b = torch.randn(3, 1, 32, 32), torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    assert float(slerp(a, b, 0.5).std()) == pytest.approx(1, abs=0.03)  # 0.71 along a straight line
    torch.testing.assert_close(slerp(a, a, 0.3), a, rtol=1e-3, atol=1e-3)


def test_the_input_image_is_optional(tmp_path: Path) -> None:
    dataset = OptionalFigureDataset(filepath=str(tmp_path / "given.png"))
    assert dataset.load() is None
    dataset.save(Image.new("L", (3, 2)))
    assert dataset.load().size == (3, 2)
    (tmp_path / "given.png").write_bytes(b"no picture")
    with pytest.raises((UserError, DatasetError), match="cannot be read as an image"):
        dataset.load()


def test_an_empty_box_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"box = \[0.5, 0.0, 0.5, 1.0\] is empty"):
        InpaintingParameters(num_images=1, box=(0.5, 0.0, 0.5, 1.0), variants=1)
