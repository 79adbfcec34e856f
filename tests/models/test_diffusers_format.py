"""Export to diffusers and import: both sides compute the same with the converted weights."""

import json
import time
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from ddpm_kedro.diffusion import make_schedule
from ddpm_kedro.errors import UserError
from ddpm_kedro.models import (
    DiffusersModel,
    RunRecord,
    TrainedModel,
    UNet,
    from_diffusers,
    to_diffusers,
    unsupported_reason,
)
from ddpm_kedro.models.diffusers_config import (
    PREDICTION_TYPES,
    SCHEDULER_DEFAULTS,
    SCHEDULES,
    UNET_DEFAULTS,
    scheduler_config,
)
from ddpm_kedro.parameters import DiffusionParameters
from ddpm_kedro.provenance import Provenance
from tests.conftest import DIFFUSION, MODEL, changed, randomise

# The configuration of the published google/ddpm-cifar10-32, at an eighth of its width.
PUBLISHED: dict[str, Any] = {
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [16, 32, 32, 32],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 8,
    "out_channels": 3,
    "sample_size": 32,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}
SCHEDULER = {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
NETWORKS: dict[str, dict[str, Any]] = {
    "two levels": {},
    "a first level wider than the sinusoid": {"channel_multipliers": [2, 3], "attention_levels": [0]},
    "three times as wide": {"channel_multipliers": [3], "attention_levels": []},
    "three levels, two blocks, heads": {
        "channel_multipliers": [1, 2, 2],
        "blocks_per_level": 2,
        "attention_levels": [1, 2],
        "head_channels": 4,
        "norm_eps": 1e-6,
    },
}


def trained(
    classes: int = 3, size: tuple[int, int] = (8, 8), diffusion: DiffusionParameters = DIFFUSION, **model: Any
) -> TrainedModel:
    p = changed(MODEL, **model)
    groups = {"model": p.model_dump(mode="json"), "diffusion": diffusion.model_dump(mode="json")}
    network = randomise(UNet(p, 3, classes)).eval()
    names = tuple(f"class {index}" for index in range(classes))
    return TrainedModel(network, RunRecord(Provenance(groups, {"training_images": "x"}), (3, *size), names), 16)


def published(**values: Any) -> UNet2DModel:
    return randomise(UNet2DModel.from_config(PUBLISHED | values)).eval()  # type: ignore[return-value]


def as_found(network: UNet2DModel, scheduler: dict[str, Any] | None = None) -> DiffusersModel:
    config = {key: list(value) if isinstance(value, tuple) else value for key, value in network.config.items()}
    return DiffusersModel((config | {"_class_name": "UNet2DModel"}, network.state_dict()), scheduler or SCHEDULER)


def in_diffusers(part: tuple[dict[str, Any], dict[str, torch.Tensor]]) -> UNet2DModel:
    network = UNet2DModel.from_config(part[0])
    network.load_state_dict(part[1])
    return network.eval()  # type: ignore[no-any-return]


def inputs(size: tuple[int, int] = (8, 8)) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(4, 3, *size), torch.tensor([0, 3, 50, 300])  # later sinusoids are rounded differently


def assert_same_images(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("classes", [0, 3])
@torch.no_grad()
def test_an_exported_network_computes_the_same_in_diffusers(network: str, classes: int) -> None:
    model = trained(classes, **NETWORKS[network])
    exported = to_diffusers(model)
    x, t = inputs()
    assert_same_images(model.network(x, t), in_diffusers(exported.unet)(x, t).sample)
    if not classes:
        assert exported.with_classes is None
        return
    labels = torch.tensor([0, 1, 2, 3])
    with_labels = model.network(x, t, labels)
    assert exported.with_classes is not None
    assert_same_images(with_labels, in_diffusers(exported.with_classes)(x, t, labels).sample)
    assert (with_labels[:3] - model.network(x, t)[:3]).abs().amax(dim=(1, 2, 3)).min() > 1e-2


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("classes", [0, 3])
def test_importing_an_exported_model_restores_it(network: str, classes: int) -> None:
    model = trained(classes, **NETWORKS[network])
    again = from_diffusers(to_diffusers(model))
    assert (again.made_by, again.image_shape, again.class_names) == (model.made_by, (3, 8, 8), model.class_names)
    assert (again.images_seen, again.run_id, again.imported) == (16, model.run_id, True)
    for name, tensor in model.network.state_dict().items():
        assert again.network.state_dict()[name].equal(tensor), name


@pytest.mark.parametrize(
    ("part", "classes"), [("unet", 0), ("config", 0), ("unet", 3), ("config", 3), ("with_classes", 3), ("both", 3)]
)
def test_a_changed_exported_folder_is_an_error(part: str, classes: int) -> None:
    found = to_diffusers(trained(classes))

    def trained_on(old: Any) -> Any:
        return old[0], {name: tensor + 0.1 if name == "conv_out.bias" else tensor for name, tensor in old[1].items()}

    if part == "config":
        found = replace(found, unet=(found.unet[0] | {"norm_eps": 1e-3}, found.unet[1]))
    if part in {"unet", "both"}:
        found = replace(found, unet=trained_on(found.unet))
    if part in {"with_classes", "both"}:
        found = replace(found, with_classes=trained_on(found.with_classes))
    with pytest.raises(UserError, match="changed since it was exported"):
        from_diffusers(found)
    if part == "unet":
        assert from_diffusers(replace(found, own=None, with_classes=None)).class_names == ()


@pytest.mark.parametrize("own", [{}, {"parameters": {"model": 3}}, {"parameters": {"model": {"width": 8}}}])
def test_a_damaged_ddpm_kedro_json_is_named(own: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"move ddpm_kedro\.json away"):
        from_diffusers(replace(to_diffusers(trained()), own=own))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (trained(patch_size=2), "has no patches, and model.patch_size is 2"),
        (trained(size=(28, 27)), "takes multiples of 2 pixels, and the images are 28×27"),
        (trained(size=(28, 28), channel_multipliers=[1, 2, 2, 2]), "takes multiples of 8 pixels"),
    ],
)
def test_models_without_equivalent_in_diffusers_are_not_exported(model: TrainedModel, reason: str) -> None:
    assert reason in str(unsupported_reason(model))


@torch.no_grad()
def test_a_model_for_images_that_are_not_square_is_exported() -> None:
    model = trained(0, size=(8, 12))
    assert unsupported_reason(model) is None
    exported = to_diffusers(model)
    x, t = inputs((8, 12))
    assert_same_images(model.network(x, t), in_diffusers(exported.unet)(x, t).sample)
    assert from_diffusers(replace(exported, own=None)).image_shape == (3, 8, 12)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", PREDICTION_TYPES)
def test_the_exported_schedule_equals_diffusers(schedule: str, target: str) -> None:
    p = changed(DIFFUSION, schedule=schedule, target=target, num_timesteps=50, beta_end=0.1)
    theirs = DDPMScheduler.from_config(scheduler_config(p))
    torch.testing.assert_close(make_schedule(p).alpha.float() ** 2, theirs.alphas_cumprod, rtol=1e-4, atol=1e-6)
    x0, noise, t = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8), torch.tensor([3, 40])
    torch.testing.assert_close(
        make_schedule(p).to("cpu").add_noise(x0, noise, t), theirs.add_noise(x0, noise, t), rtol=1e-4, atol=1e-5
    )
    found = from_diffusers(replace(to_diffusers(trained(0, diffusion=p)), own=None)).diffusion
    assert found == p


def test_every_schedule_and_target_can_be_exported() -> None:
    """A new one needs a line in the tables, or an exception here if diffusers has no equivalent."""
    fields = DiffusionParameters.model_fields
    assert {*SCHEDULES, "edm", "flow"} == set(fields["schedule"].annotation.__args__)  # type: ignore[union-attr]
    assert {*PREDICTION_TYPES, "edm", "velocity"} == set(fields["target"].annotation.__args__)  # type: ignore[union-attr]


@torch.no_grad()
def test_the_published_network_computes_the_same_here() -> None:
    theirs = published()
    model = from_diffusers(as_found(theirs))
    x, t = inputs((32, 32))
    assert_same_images(model.network(x, t), theirs(x, t).sample)
    assert model.diffusion == changed(DIFFUSION, num_timesteps=1000, schedule="linear", target="noise")
    assert (model.image_shape, model.class_names, model.imported) == ((3, 32, 32), (), True)
    assert model.parameters.dropout == 0
    assert not model.network.training


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_tensors_of_lower_precision_are_read(half: torch.dtype) -> None:
    found = as_found(published())
    found = replace(found, unet=(found.unet[0], {name: tensor.to(half) for name, tensor in found.unet[1].items()}))
    weights = from_diffusers(found).network.state_dict()
    assert all(weights[name].equal(tensor.float()) for name, tensor in found.unet[1].items())


@torch.no_grad()
def test_attention_weights_by_their_older_names_are_read() -> None:
    theirs = published(attention_head_dim=8)
    found = as_found(theirs)
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = {}
    for name, tensor in found.unet[1].items():
        for new, old in older.items():
            name = name.replace(f".{new}.", f".{old}.")  # noqa: PLW2901
        weights[name] = tensor
    assert set(weights) != set(found.unet[1])
    x, t = inputs((32, 32))
    assert_same_images(from_diffusers(replace(found, unet=(found.unet[0], weights))).network(x, t), theirs(x, t).sample)


class TestClasses:
    @pytest.fixture
    def theirs(self) -> UNet2DModel:
        return published(num_class_embeds=4)

    @torch.no_grad()
    def test_without_names_every_embedding_is_a_class(self, theirs: UNet2DModel) -> None:
        model = from_diffusers(as_found(theirs))
        assert model.class_names == ("0", "1", "2", "3")
        (x, t), labels = inputs((32, 32)), torch.tensor([3, 0, 1, 2])
        assert_same_images(model.network(x, t, labels), theirs(x, t, labels).sample)
        table = model.network.class_embedding.weight  # type: ignore[union-attr]
        torch.testing.assert_close(table[4], table[:4].mean(dim=0))
        assert not model.knows_empty_label

    @torch.no_grad()
    def test_one_name_fewer_means_that_the_last_is_the_empty_label(self, theirs: UNet2DModel) -> None:
        model = from_diffusers(as_found(theirs), ["cat", "dog", "frog"])
        assert model.class_names == ("cat", "dog", "frog")
        assert model.knows_empty_label
        x, t = inputs((32, 32))
        assert_same_images(model.network(x, t), theirs(x, t, torch.full((4,), 3)).sample)

    def test_other_numbers_of_names_are_an_error(self, theirs: UNet2DModel) -> None:
        with pytest.raises(UserError, match="has 2 names, but the model has 4 class embeddings: give 4, or 3 if"):
            from_diffusers(as_found(theirs), ["cat", "dog"])
        with pytest.raises(UserError, match="no class embeddings"):
            from_diffusers(as_found(published()), ["cat", "dog"])

    def test_a_missing_embedding_is_an_error(self, theirs: UNet2DModel) -> None:
        found = as_found(theirs)
        found.unet[1].pop("class_embedding.weight")
        with pytest.raises(UserError, match=r"1 missing \(class_embedding.weight\)"):
            from_diffusers(found)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("_class_name", "UNet2DConditionModel", 'Supported: "UNet2DModel"'),
        ("downsample_padding", 1, "Supported: 0"),
        ("flip_sin_to_cos", True, "Supported: false"),
        ("freq_shift", 0, "Supported: 1"),
        ("center_input_sample", True, "Supported: false"),
        ("act_fn", "gelu", 'Supported: "silu"'),
        ("time_embedding_type", "fourier", 'Supported: "positional"'),
        ("time_embedding_dim", 128, "Supported: null or 64"),
        ("mid_block_type", None, 'Supported: "UNetMidBlock2D"'),
        ("mid_block_scale_factor", 2, "Supported: 1"),
        ("resnet_time_scale_shift", "scale_shift", 'Supported: "default"'),
        ("add_attention", False, "Supported: true"),
        ("downsample_type", "resnet", 'Supported: "conv"'),
        ("upsample_type", "resnet", 'Supported: "conv"'),
        ("attn_norm_num_groups", 4, "Supported: null"),
        ("class_embed_type", "timestep", "Supported: null"),
        ("down_block_types", ["DownBlock2D", "SkipDownBlock2D", "DownBlock2D", "DownBlock2D"], "DownBlock2D or Attn"),
        ("up_block_types", ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"], "down_block_types mirrored"),
        ("block_out_channels", [16, 24, 32, 32], "Supported: multiples of the first one"),
        ("block_out_channels", [], "Supported: multiples of the first one"),
        ("out_channels", 6, "Supported: 3, as in_channels"),
        ("sample_size", None, "a number, or [height, width]"),
    ],
)
def test_values_that_the_network_does_not_support_are_named(key: str, value: Any, words: str) -> None:
    found = as_found(published())
    with pytest.raises(UserError) as error:
        from_diffusers(replace(found, unet=(found.unet[0] | {key: value}, found.unet[1])))
    assert f"{key} = {json.dumps(value)} in config.json of the U-Net is not supported" in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_out_channels", None),
        ("block_out_channels", "many"),
        ("block_out_channels", [-16, -32, -32, -32]),
        ("block_out_channels", [65_536, 65_536, 65_536, 65_536]),
        ("block_out_channels", [2**62, 2**62, 2**62, 2**62]),
        ("block_out_channels", [[16], 32, 32, 32]),
        ("down_block_types", None),
        ("down_block_types", [1, 2, 3, 4]),
        ("up_block_types", "UpBlock2D"),
        ("layers_per_block", None),
        ("layers_per_block", -1),
        ("layers_per_block", 10**9),
        ("in_channels", None),
        ("in_channels", "three"),
        ("sample_size", "large"),
        ("sample_size", -8),
        ("sample_size", [8]),
        ("sample_size", 10**9),
        ("num_class_embeds", 20_000_000),
        ("num_class_embeds", "ten"),
        ("num_class_embeds", -1),
        ("norm_num_groups", None),
        ("norm_num_groups", 0),
        ("norm_eps", "small"),
        ("norm_eps", float("nan")),
        ("attention_head_dim", -1),
        ("dropout", 2),
        ("time_embedding_dim", [1]),
        ("act_fn", json.loads("[" * 500 + "]" * 500)),
    ],
)
def test_invalid_values_of_a_configuration_are_named_at_once(key: str, value: Any) -> None:
    found = as_found(published(num_class_embeds=4))
    start = time.process_time()
    with pytest.raises(UserError) as error:
        from_diffusers(replace(found, unet=(found.unet[0] | {key: value}, found.unet[1])))
    assert time.process_time() - start < 10  # CPU seconds: a busy machine does not change them
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_train_timesteps", None),
        ("num_train_timesteps", -5),
        ("num_train_timesteps", 10**12),
        ("beta_start", "small"),
        ("beta_end", [0.1]),
        ("beta_schedule", []),
        ("prediction_type", {}),
        ("_class_name", 3),
        ("rescale_betas_zero_snr", "perhaps"),
    ],
)
def test_invalid_values_of_a_scheduler_are_named(key: str, value: Any) -> None:
    with pytest.raises(UserError) as error:
        from_diffusers(as_found(published(), SCHEDULER | {key: value}))
    assert "scheduler_config.json" in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_imported(value: float) -> None:
    found = as_found(published())
    weights = found.unet[1] | {"conv_in.bias": torch.full((16,), value)}
    with pytest.raises(UserError, match=r"weights are not finite: conv_in.bias"):
        from_diffusers(replace(found, unet=(found.unet[0], weights)))


def test_a_ddpm_kedro_json_of_a_model_without_equivalent_is_named() -> None:
    found = to_diffusers(trained())
    own = dict(found.own)  # type: ignore[arg-type]
    own["parameters"] = own["parameters"] | {"diffusion": {"num_timesteps": 100, "schedule": "edm", "target": "edm"}}
    del own["run_id"]
    with pytest.raises(UserError, match=r"move ddpm_kedro\.json away"):
        from_diffusers(replace(found, own=own))


def test_missing_keys_of_a_configuration_mean_diffusers_defaults() -> None:
    theirs = {name: parameter.default for name, parameter in signature(UNet2DModel.__init__).parameters.items()}
    for key, value in UNET_DEFAULTS.items():
        if key != "_class_name":
            assert (list(theirs[key]) if isinstance(theirs[key], tuple) else theirs[key]) == value, key
    scheduler = {name: parameter.default for name, parameter in signature(DDPMScheduler.__init__).parameters.items()}
    assert {
        key: scheduler[key] for key in SCHEDULER_DEFAULTS if key != "_class_name"
    }.items() <= SCHEDULER_DEFAULTS.items()
    found = as_found(published())
    config = {key: value for key, value in found.unet[0].items() if key != "freq_shift"}
    with pytest.raises(UserError, match="freq_shift = 0"):
        from_diffusers(replace(found, unet=(config, found.unet[1])))


def test_values_that_no_network_can_have_are_named() -> None:
    found = as_found(published())
    with pytest.raises(
        UserError, match=r"config.json of the U-Net is not supported: .*norm_groups = 7 does not divide"
    ):
        from_diffusers(replace(found, unet=(found.unet[0] | {"norm_num_groups": 7}, found.unet[1])))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_class_name", "ScoreSdeVeScheduler"),
        ("beta_schedule", "laplace"),
        ("prediction_type", "flow"),
        ("trained_betas", [0.1, 0.2]),
        ("thresholding", True),
        ("clip_sample_range", 2.0),
    ],
)
def test_values_that_the_schedules_do_not_support_are_named(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"{key} = .* in scheduler_config.json is not supported. Supported: "):
        from_diffusers(as_found(published(), SCHEDULER | {key: value}))


def test_sampling_options_of_a_scheduler_are_ignored() -> None:
    sampling = {
        "_class_name": "PNDMScheduler",
        "variance_type": "fixed_large",
        "clip_sample": False,
        "set_alpha_to_one": 1,
    }
    assert from_diffusers(as_found(published(), SCHEDULER | sampling)).diffusion.schedule == "linear"
    with pytest.raises(UserError, match=r"beta_start = 0.5 is above beta_end"):
        from_diffusers(as_found(published(), SCHEDULER | {"beta_start": 0.5}))


def test_weights_that_do_not_fit_are_named() -> None:
    found = as_found(published())
    weights = dict(found.unet[1])
    weights["extra.weight"] = weights.pop("conv_in.weight")
    weights["conv_out.bias"] = torch.zeros(5)
    for name in [name for name in weights if "up_blocks.0" in name]:
        del weights[name]
    with pytest.raises(UserError) as error:
        from_diffusers(replace(found, unet=(found.unet[0], weights)))
    for words in (
        "missing (conv_in.weight, up_blocks.0.resnets.0.norm1.weight",
        ", …)",
        "1 not of this network (extra.weight)",
        "1 of another shape (conv_out.bias: [5], not [3])",
    ):
        assert words in str(error.value)
    assert len(str(error.value)) < 500


def test_the_projects_own_code_needs_no_diffusers() -> None:
    root = Path(__file__).parents[2]
    assert not [path for path in (root / "src").rglob("*.py") if "import diffusers" in path.read_text()]
    assert not [path for path in (root / "src").rglob("*.py") if "from diffusers" in path.read_text()]
