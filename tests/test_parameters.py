"""Checked parameters: valid values, invalid values and their errors."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError

from ddpm_kedro.datasets.chosen_parameters import ChosenParametersDataset
from ddpm_kedro.diffusion import generator_for
from ddpm_kedro.errors import ConflictError, UserError, nearest
from ddpm_kedro.parameters import DiffusionParameters, Parameters, check_parameters
from ddpm_kedro.parameters.earlier import convert_stored
from ddpm_kedro.provenance import flatten
from tests.conftest import (
    DIFFUSION,
    EVALUATION,
    IMAGE_TO_IMAGE,
    IMAGES,
    IMPORT_MODEL,
    INPAINTING,
    INTERPOLATION,
    MODEL,
    NO_AUGMENTATION,
    OPTIMIZER,
    REPORTING,
    ROOT,
    SAMPLING,
    TRAINING,
    changed,
)

GOOD: dict[str, Any] = {
    "use": {"model": "digits"},
    "dataset": {"source": "mnist5k", "download_folder": "raw", "path": None, "sha256": None, "classes": None},
    "images": IMAGES.model_dump(),
    "augmentation": NO_AUGMENTATION.model_dump(),
    "model": MODEL.model_dump(),
    "diffusion": DIFFUSION.model_dump(),
    "optimizer": OPTIMIZER.model_dump(),
    "training": TRAINING.model_dump(),
    "sampling": SAMPLING.model_dump(),
    "image_to_image": IMAGE_TO_IMAGE.model_dump(),
    "inpainting": INPAINTING.model_dump(),
    "interpolation": INTERPOLATION.model_dump(),
    "evaluation": EVALUATION.model_dump(),
    "reporting": REPORTING.model_dump(),
    "tracking": {"mode": "disabled", "project": "p", "entity": None, "name": None, "group": None},
    "import_model": IMPORT_MODEL.model_dump(),
    "run": {"repeat": False},
}


MAY_BE_EMPTY = (
    "value_bits",
    "head_channels",
    "label",
    "entity",
    "tracking.name",
    "tracking.project",
    "tracking.group",
    "optimizer.betas",
    "inception_weights",
    "guidance_scale",
    "guidance_interval",
    "initial_model",
    "ema_rampup_ratio",
    "import_model.path",
    "import_model.class_names",
    "dataset.path",
    "dataset.classes",
    "dataset.sha256",
    "images.size",
    "images.channels",
    "images.workers",
)


def with_value(name: str, value: Any) -> dict[str, Any]:
    group, key = name.split(".")
    return GOOD | {group: GOOD[group] | {key: value}}


def test_good_parameters_are_accepted_and_frozen() -> None:
    checked = check_parameters(GOOD)
    assert checked.training == TRAINING
    with pytest.raises(ValidationError):
        checked.training.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("training.batch_sise", 4, "Unknown parameter 'training.batch_sise'. Did you mean 'batch_size'"),
        ("optimizer.lr", -1e-3, "Parameter 'optimizer.lr' = -0.001: input should be greater than 0"),
        ("optimizer.lr", float("nan"), "Parameter 'optimizer.lr' = nan: input should be a finite number"),
        ("training.batch_size", "many", "Parameter 'training.batch_size' = 'many': input should be a valid integer"),
        ("training.batch_size", 0, "'training.batch_size' = 0: input should be greater than 0"),
        ("training.ema_half_life", 0, "Parameter 'training.ema_half_life' = 0: input should be greater than 0"),
        (
            "training.ema_rampup_ratio",
            1.5,
            "'training.ema_rampup_ratio' = 1.5: input should be less than or equal to 1",
        ),
        ("augmentation.non_leaking", 2, "Parameter 'augmentation.non_leaking' = 2: input should be less than or equal"),
        ("training.label_dropout", 1.0, "'training.label_dropout' = 1.0: input should be less than 1"),
        ("training.device", "gpu", "'training.device' = 'gpu': input should be 'auto', 'cpu', 'cuda' or 'mps'"),
        (
            "dataset.download_folder",
            "s3://me:pw@bucket/raw",
            "Parameter 'dataset.download_folder': downloads go to a folder on this machine, not to a URL.",
        ),
        ("dataset.path", ["a"], "Parameter 'dataset.path' = ['a']: input should be a valid string"),
        ("model.width", 10, "Parameter 'model': norm_groups = 4 does not divide 10, the channels of a level"),
        ("model.width", 9, "'model.width' = 9: input should be a multiple of 2"),
        ("model.head_channels", 3, "head_channels = 3 does not divide 8"),
        ("model.attention_levels", [2], "attention_levels names level 2, but the levels are 0 to 1"),
        ("model.channel_multipliers", [], "'model.channel_multipliers'"),
        ("diffusion.beta_start", 0.5, "beta_start = 0.5 is above beta_end = 0.02"),
        (
            "diffusion.schedule",
            "cosinus",
            "'diffusion.schedule' = 'cosinus': input should be 'linear', 'scaled_linear', ",
        ),
        ("diffusion.sigma_min", 90.0, "sigma_min = 90.0 is above sigma_max = 80.0"),
        ("sampling.timestep_spacing", "even", "'sampling.timestep_spacing' = 'even': input should be 'trailing'"),
        ("optimizer.name", "sgd", "sgd needs momentum; choose it with use.optimizer=sgd"),
        ("optimizer.momentum", 0.9, "adam has no momentum"),
        ("sampling.sampler", "euler", "'sampling.sampler' = 'euler': input should be 'ddpm', 'ddim', "),
        (
            "images.size",
            7,
            "'images.size' = 7: input should be greater than or equal to 8, or input should be a valid tuple.",
        ),
        (
            "images.size",
            [8, 0],
            "'images.size' = [8, 0]: input should be a valid integer, or input should be greater than or equal",
        ),
        ("model.attention_levels", [-1], "Parameter 'model.attention_levels.0' = -1: input should be greater than"),
        ("images.size", "40×60", "'40×60' is given, but a number of pixels such as 32, or height and"),
        ("images.size", "50x", "Parameter 'images.size': '50x' is given, but a number of pixels such as 32, or height"),
        ("images.background", "red", "Parameter 'images.background': 'red' is given, but red, green and blue such as"),
        ("images.background", "1/2/256", "'images.background.2' = '256': input should be less than or equal to 255"),
        ("use.model", 3, "Parameter 'use.model' = 3: input should be a valid string"),
        *(
            (name, 2**64, f"'{name}' = {2**64}: input should be less than {2**64}")
            for name in ("training.seed", "sampling.seed", "evaluation.seed", "images.seed")
        ),
        ("interpolation.seeds", [0, 2**64], "'interpolation.seeds.1'"),
        (
            "training.preview_steps",
            101,
            "training.preview_steps = 101 is more than diffusion.num_timesteps = 100; lower the first, or set "
            "training.preview_images=0.",
        ),
        ("images.holdout_fraction", 1.5, "'images.holdout_fraction' = 1.5: input should be less than 1"),
    ],
)
def test_invalid_values_are_rejected_with_one_line(name: str, value: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        check_parameters(with_value(name, value))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_largest_seed_seeds_every_generator() -> None:
    largest = 2**64 - 1
    for name in ("training.seed", "sampling.seed", "evaluation.seed", "images.seed"):
        check_parameters(with_value(name, largest))
    torch.Generator().manual_seed(largest)
    assert generator_for(largest, 0).initial_seed() != generator_for(largest - 1, 0).initial_seed()


def test_few_timesteps_are_accepted_without_previews() -> None:
    without = GOOD | {"training": GOOD["training"] | {"preview_images": 0}}
    check_parameters(without | {"diffusion": GOOD["diffusion"] | {"num_timesteps": 2}, "sampling": GOOD["sampling"]})


def test_sizes_and_colours_can_be_given_on_the_command_line() -> None:
    assert check_parameters(with_value("images.size", "40x60")).images.size == (40, 60)
    assert check_parameters(with_value("images.background", "255/128/0")).images.background == (255, 128, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"target": "noise", "zero_terminal_snr": True},
            "zero_terminal_snr ends in pure noise.*choose target = v or x0",
        ),
        ({"target": "noise", "schedule": "flow"}, "schedule = flow ends in pure noise"),
        ({"schedule": "edm", "zero_terminal_snr": True}, "for schedules with betas; edm has none"),
    ],
)
def test_ill_posed_diffusion_processes_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConflictError, match=message):
        check_parameters(GOOD | {"diffusion": GOOD["diffusion"] | changes})


def test_the_shipped_diffusion_parameters_are_the_defaults_of_the_papers() -> None:
    shipped = yaml.safe_load((ROOT / "conf/base/parameters.yml").read_text())["diffusion"]
    fields = DiffusionParameters.model_fields
    assert shipped == {name: field.default for name, field in fields.items() if not field.is_required()}


def test_an_unknown_or_missing_group_is_rejected() -> None:
    with pytest.raises(UserError, match=r"Unknown parameter 'trainings'. Did you mean 'training'"):
        check_parameters(GOOD | {"trainings": {}})
    with pytest.raises(UserError, match=r"Parameter 'sampling' is missing."):
        check_parameters({name: group for name, group in GOOD.items() if name != "sampling"})


def test_conflicting_values_are_distinguished_from_invalid_ones() -> None:
    with pytest.raises(ConflictError):
        check_parameters(with_value("model.width", 10))
    for name, value in (("model.width", 9), ("model.widht", 8)):
        with pytest.raises(UserError) as error:
            check_parameters(with_value(name, value))
        assert not isinstance(error.value, ConflictError)


def test_several_errors_are_all_reported() -> None:
    with pytest.raises(UserError) as error:
        check_parameters(with_value("optimizer.lr", -1) | {"training": GOOD["training"] | {"sed": 1}})
    assert len(str(error.value).splitlines()) == 2


def test_similar_names_come_first_and_all_are_listed() -> None:
    assert nearest("cifar-10", ["svhn", "cifar10"]) == "Did you mean 'cifar10'? Accepted: svhn, cifar10."
    assert nearest("x", ["svhn"]) == "Accepted: svhn."


def test_the_fingerprint_of_a_training_has_only_parameters_that_affect_the_weights() -> None:
    assert (
        changed(TRAINING, device="auto", preview_steps=9, report_interval=1).fingerprint_fields()
        == TRAINING.fingerprint_fields()
    )
    assert changed(TRAINING, seed=9).fingerprint_fields() != TRAINING.fingerprint_fields()
    assert set(TRAINING.fingerprint_fields()) | TRAINING.excluded_from_fingerprint() == set(TRAINING.model_dump())


def test_every_parameter_of_the_shipped_files_is_known() -> None:
    names = {name for name in Parameters.model_fields if name != "use"}
    for path in [*(ROOT / "conf/base").rglob("*.yml"), *(ROOT / "conf/smoke").rglob("parameters.yml")]:
        if "groups" in path.parts or path.name == "parameters.yml":
            content = yaml.safe_load(path.read_text())
            assert set(content) <= names | {"use"}, path
            for name, value in flatten({k: v for k, v in content.items() if k != "use"}):
                assert value is not None or name.endswith(MAY_BE_EMPTY), (path, name)


@pytest.mark.parametrize(
    ("decay", "advice"),
    [
        (0.9999, ": instead of a decay of 0.9999 per step of 8 images, use training.ema_half_life=55400."),
        (0.99, "use training.ema_half_life=552."),
        (0, "use training.ema_half_life=1."),
        (1.5, "a number of images."),
        ("many", "a number of images."),
    ],
)
def test_the_removed_decay_of_the_ema_is_answered_with_its_half_life(decay: Any, advice: str) -> None:
    former = {name: value for name, value in GOOD["training"].items() if not name.startswith("ema")}
    for training in (former | {"ema_decay": decay}, GOOD["training"] | {"ema_decay": decay}):
        with pytest.raises(UserError) as error:
            check_parameters(GOOD | {"training": training})
        assert str(error.value).startswith("Parameter 'training.ema_decay' was replaced by training.ema_half_life, a ")
        assert str(error.value).endswith(advice)
        assert str(error.value).count(".\n") == 0  # nothing about the parameters that are missing
        assert not isinstance(error.value, ConflictError)


def test_stored_parameters_of_an_earlier_version_are_converted(tmp_path: Path) -> None:
    training = {name: value for name, value in GOOD["training"].items() if not name.startswith("ema")}
    flips = {"horizontal_flip": True, "vertical_flip": False, "crop_padding": 0}
    stored = GOOD | {"training": training | {"ema_decay": 0.99, "batch_size": 32}, "augmentation": flips}
    converted = check_parameters(convert_stored(stored))
    assert (converted.training.ema_half_life, converted.training.ema_rampup_ratio) == (2210, 0.05)
    assert converted.augmentation.non_leaking == 0
    assert converted.augmentation.horizontal_flip
    assert "ema_decay" in stored["training"]  # the argument is left as it is
    assert convert_stored(GOOD) == GOOD
    dataset = ChosenParametersDataset(filepath=str(tmp_path / "chosen_parameters.json"))
    dataset.save(stored)
    assert dataset.load()["training"] == convert_stored(stored)["training"]
    assert convert_stored({"use": {"model": "chosen"}, "model": {"width": 8}})["model"] == {"width": 8}
