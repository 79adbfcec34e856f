"""Tasks of a trained model: variations, inpainting, interpolation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_kedro.datasets.figure import OptionalFigureDataset
from ddpm_kedro.diffusion import slerp
from ddpm_kedro.errors import UserError
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.ingestion.given import GivenImage
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import ImageToImageParameters, InpaintingParameters, InterpolationParameters
from ddpm_kedro.pipelines.image_to_image.nodes import vary_images
from ddpm_kedro.pipelines.inpainting.nodes import fill_in
from ddpm_kedro.pipelines.interpolation.nodes import interpolate_seeds
from ddpm_kedro.sampling.inputs import inpainting_mask, input_images
from tests.conftest import IMAGES, SAMPLING, changed, make_store
from tests.ingestion import corpus

TILE, STEP = 56, 60  # side of an enlarged image of 8 pixels, and distance between two
SIDE = 80


BOX = (0.5, 0.25, 1.0, 1.0)


def given(image: Image.Image, name: str = "picture", kind: str = "PNG", **options: Any) -> GivenImage:
    return GivenImage(f"{name}.{kind.lower()}", corpus.saved(image, kind, **options))


def mask_of(model: TrainedModel, mask: GivenImage, image: GivenImage | None = None, **images: Any) -> Any:
    """Return the mask (H, W), 1 to keep a pixel."""
    return inpainting_mask(model, mask, image, BOX, changed(IMAGES, **images))[0, 0].int().numpy()


def tile(figure: Image.Image, row: int, column: int) -> np.ndarray[Any, Any]:
    """Return one image of a figure, at its original size."""
    left, top = SIDE + column * STEP, 4 + row * STEP
    return np.asarray(figure.convert("L").crop((left, top, left + TILE, top + TILE)).resize((8, 8), 0)).astype(int)


def test_variations_of_low_strength_stay_closer_to_the_input(model: TrainedModel, store: ImageStore) -> None:
    parameters = ImageToImageParameters(num_images=3, strengths=(0.05, 1.0))
    figure = vary_images(model, store, None, changed(SAMPLING, num_inference_steps=40), parameters, IMAGES)
    for column, index in enumerate((0, 13, 26)):
        original = tile(figure, 0, column)
        assert np.array_equal(original, store.images[index, :, :, 0])
        little, much = (np.abs(tile(figure, row, column) - original).mean() for row in (1, 2))
        assert 0 < little < much


def test_inpainting_generates_only_the_masked_part(model: TrainedModel, store: ImageStore) -> None:
    parameters = InpaintingParameters(num_images=2, box=(0.5, 0.25, 1.0, 1.0), variants=2)
    figure = fill_in(model, store, None, None, SAMPLING, parameters, IMAGES)
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
    image, parts = given(own), given(Image.fromarray(mask), "mask")
    figure = fill_in(model, store, image, parts, changed(SAMPLING, label="class 1"), parameters, IMAGES)
    filled = tile(figure, 2, 1)
    assert np.array_equal(filled[:, 1:], np.asarray(own.convert("L"))[:, 1:])
    assert not np.array_equal(filled[:, 0], np.asarray(own.convert("L"))[:, 0])
    assert input_images(model, image, store, 2, "class 1", IMAGES)[1].tolist() == [1, 1]
    assert input_images(model, image, store, 2, None, IMAGES)[1] is None


def test_masks_that_keep_all_or_nothing_are_errors(model: TrainedModel) -> None:
    with pytest.raises(UserError, match="mask keeps nothing"):
        inpainting_mask(model, None, None, (0, 0, 1, 1), IMAGES)
    with pytest.raises(UserError, match=r"mask keeps everything.*mask\.png has grey levels from 0 to 1 of 255"):
        mask_of(model, given(Image.fromarray(np.eye(8, dtype=np.uint8)), "mask"))  # 0 and 1 for 0 and 255


def test_holdout_images_of_another_shape_are_an_error(model: TrainedModel) -> None:
    with pytest.raises(UserError, match=r"holdout images are \(3, 8, 8\), but the model generates \(1, 8, 8\)"):
        input_images(model, None, make_store(channels=3), 1, None, IMAGES)


def test_a_given_image_is_converted_like_the_training_images(model: TrainedModel, store: ImageStore) -> None:
    """By the parameters of the images, and the bits that the 16-bit training images use."""
    wide = np.zeros((8, 16), dtype=np.uint16)
    wide[:, 8:] = 4_095
    image, deep = given(Image.fromarray(wide)), replace(store, statistics={"value_bits": 13})

    def pixels(**images: Any) -> Any:
        start, _ = input_images(model, image, deep, 2, None, changed(IMAGES, **images))
        return ((start[:, 0] + 1) * 127.5).round().int().numpy()

    assert pixels().shape == (2, 8, 8)
    assert np.array_equal(pixels()[1], pixels()[0])
    assert np.unique(pixels(value_bits=12)[0, :, [0, -1]]).tolist() == [0, 255]  # the middle: half of it white
    assert pixels()[0, 0, -1] == round(4_095 * 255 / 8_191)
    assert (pixels(fit="pad", background=(255, 255, 255))[0, 0] == 255).all()


def test_a_mask_is_turned_and_cropped_like_the_image(model: TrainedModel) -> None:
    image = given(Image.new("RGB", (32, 16)))  # its middle 16×16 is used
    mask = np.zeros((16, 32), dtype=np.uint8)
    mask[:4, 8:] = 255
    expected = np.ones((8, 8), dtype=int)
    expected[:2] = 0
    assert np.array_equal(mask_of(model, given(Image.fromarray(mask), "mask"), image), expected)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by a quarter
    turned = Image.fromarray(np.rot90(mask).copy())
    assert np.array_equal(mask_of(model, given(turned, "mask", exif=exif.tobytes()), image), expected)
    small = Image.fromarray(mask[::2, ::2])
    assert np.array_equal(mask_of(model, given(small, "mask"), image), expected)
    padded = mask_of(model, given(Image.fromarray(mask), "mask"), image, fit="pad")
    assert padded[[0, 1, 6, 7]].all()  # borders are kept
    assert padded[2].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


def test_a_mask_of_the_models_size_is_used_unchanged(model: TrainedModel) -> None:
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[0, 0] = 128
    kept = mask_of(model, given(Image.fromarray(mask), "mask"), given(Image.new("L", (40, 30))))
    assert np.argwhere(kept == 0).tolist() == [[0, 0]]


def test_deep_and_transparent_masks_are_read_as_they_look(model: TrainedModel) -> None:
    expected = np.zeros((8, 8), dtype=int)
    expected[4:] = 1
    deep = np.where(expected, 0, 65_535).astype(np.uint16)
    assert np.array_equal(mask_of(model, given(Image.fromarray(deep), "mask")), expected)
    layer = np.full((8, 8, 4), 255, dtype=np.uint8)  # white, transparent below
    layer[4:, :, 3] = 0
    assert np.array_equal(mask_of(model, given(Image.fromarray(layer), "mask")), expected)


def test_a_mask_of_another_shape_than_its_image_is_an_error(model: TrainedModel) -> None:
    image, mask = given(Image.new("RGB", (40, 30))), given(Image.new("L", (30, 40), 255), "mask")
    with pytest.raises(
        UserError, match=r"mask\.png is 30×40 pixels, but the image picture\.png is 40×30: .* model generates, 8×8"
    ):
        mask_of(model, mask, image)
    nearly = Image.new("L", (13, 10))  # 40×30 shrunk to a third, rounded
    nearly.paste(255, (0, 0, 6, 10))
    assert mask_of(model, given(nearly, "mask"), image).sum() > 0


@pytest.mark.parametrize("data", [b"", b"no picture", corpus.cut(corpus.picture(), 0.5)])
def test_a_given_file_that_is_no_image_is_an_error(data: bytes, model: TrainedModel, store: ImageStore) -> None:
    with pytest.raises(UserError, match=r"in/picture\.png gives no image: (it|the file) is .*\. Save another image"):
        input_images(model, GivenImage("in/picture.png", data), store, 1, None, IMAGES)
    with pytest.raises(UserError, match="gives no image"):
        mask_of(model, GivenImage("mask.png", data), given(Image.new("L", (8, 8))))


def test_a_given_image_with_too_many_pixels_is_an_error(model: TrainedModel, store: ImageStore) -> None:
    with pytest.raises(UserError, match=r"it has more than 50 pixels \(images\.max_pixels\)"):
        input_images(model, given(Image.new("L", (8, 8))), store, 1, None, changed(IMAGES, max_pixels=50))


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
    dataset.save(GivenImage("any.jpg", b"not decoded here"))
    assert dataset.load() == GivenImage(str(tmp_path / "given.png"), b"not decoded here")


def test_an_empty_box_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"box = \[0.5, 0.0, 0.5, 1.0\] is empty"):
        InpaintingParameters(num_images=1, box=(0.5, 0.0, 0.5, 1.0), variants=1)
