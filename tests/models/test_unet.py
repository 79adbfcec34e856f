"""The U-Net: shapes, and agreement with diffusers' ``UNet2DModel``."""

from typing import Any

import pytest
import torch
from diffusers import UNet2DModel

from ddpm_kedro.models import UNet
from ddpm_kedro.models.blocks import attention, timestep_embedding
from ddpm_kedro.parameters import ModelParameters
from tests.conftest import MODEL, changed, randomise


def build(parameters: ModelParameters = MODEL, channels: int = 3, num_classes: int = 0) -> UNet:
    return randomise(UNet(parameters, channels, num_classes)).eval()


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (128, 128), (256, 256), (32, 48), (20, 12)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_output_has_the_shape_of_the_input(size: tuple[int, int], channels: int, device: torch.device) -> None:
    network = build(changed(MODEL, attention_levels=[]), channels).to(device)
    x = torch.randn(2, channels, *size, device=device)
    out = network(x, torch.tensor([3, 50], device=device))
    assert out.shape == x.shape
    assert out.std() > 0.1


@pytest.mark.parametrize("size", [(28, 28), (27, 33), (5, 7), (30, 16)])
@pytest.mark.parametrize("patch_size", [1, 2])
def test_any_size_is_padded_internally(size: tuple[int, int], patch_size: int) -> None:
    network = build(changed(MODEL, patch_size=patch_size, channel_multipliers=[1, 2, 2]), 1)
    x = torch.randn(2, 1, *size)
    assert network(x, torch.tensor([3, 50])).shape == x.shape


def test_padding_is_removed_from_the_output() -> None:
    network = build(MODEL, 1)
    x, t = torch.randn(1, 1, 7, 8), torch.tensor([5])
    padded = torch.nn.functional.pad(x, (0, 0, 0, 1), mode="replicate")
    torch.testing.assert_close(network(x, t), network(padded, t)[:, :, :7])


DIFFUSERS_CASES: dict[str, dict[str, Any]] = {
    "two levels": {},
    "attention at full resolution": {"attention_levels": [0]},
    "three levels, two blocks": {"channel_multipliers": [1, 2, 2], "blocks_per_level": 2, "attention_levels": [1, 2]},
    "several heads": {"head_channels": 4},
}


@pytest.mark.parametrize("case", DIFFUSERS_CASES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_classes", [0, 5])
def test_equals_diffusers(case: str, channels: int, num_classes: int) -> None:
    p = changed(MODEL, **DIFFUSERS_CASES[case])
    ours = build(p, channels, num_classes)
    levels = range(len(p.channel_multipliers))
    theirs = UNet2DModel(
        in_channels=channels,
        out_channels=channels,
        block_out_channels=[p.width * m for m in p.channel_multipliers],
        layers_per_block=p.blocks_per_level,
        down_block_types=["AttnDownBlock2D" if i in p.attention_levels else "DownBlock2D" for i in levels],
        up_block_types=["AttnUpBlock2D" if i in p.attention_levels else "UpBlock2D" for i in reversed(levels)],
        norm_num_groups=p.norm_groups,
        norm_eps=p.norm_eps,
        attention_head_dim=p.head_channels,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        num_class_embeds=num_classes + 1 if num_classes else None,
    ).eval()
    assert {n: t.shape for n, t in ours.state_dict().items()} == {n: t.shape for n, t in theirs.state_dict().items()}
    theirs.load_state_dict(ours.state_dict())
    x, t = torch.randn(2, channels, 16, 24), torch.tensor([3, 700])
    labels = torch.tensor([1, num_classes]) if num_classes else None
    with torch.no_grad():
        expected, found = theirs(x, t, class_labels=labels).sample, ours(x, t, labels)
    assert found.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_each_picture_has_its_own_time_and_class() -> None:
    network = build(MODEL, 1, 3)
    x, t, labels = torch.randn(4, 1, 8, 8), torch.tensor([1, 20, 40, 80]), torch.tensor([0, 1, 2, 3])
    together = network(x, t, labels)
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1], labels[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    later = network(x, torch.tensor([1, 20, 40, 90]), labels)
    moved = (later - together).abs().amax(dim=(1, 2, 3))
    assert (moved[:3] < 1e-5).all()
    assert moved[3] > 1e-3
    other = network(x, t, torch.tensor([0, 1, 2, 0]))
    assert ((other - together).abs().amax(dim=(1, 2, 3)) > 1e-3).tolist() == [False, False, False, True]


def test_time_reaches_every_residual_block() -> None:
    network = build(MODEL, 1)
    x = torch.randn(2, 1, 8, 8)
    for name, module in network.named_modules():
        if name.endswith("time_emb_proj"):
            weight = module.weight.clone()
            before = network(x, torch.tensor([3, 50]))
            with torch.no_grad():
                module.weight.zero_()
            assert (network(x, torch.tensor([3, 50])) - before).abs().max() > 1e-4, name
            with torch.no_grad():
                module.weight.copy_(weight)


def test_no_label_means_the_empty_label() -> None:
    network = build(MODEL, 1, 3)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 50])
    torch.testing.assert_close(network(x, t), network(x, t, torch.tensor([3, 3])))


def test_labels_for_a_model_without_classes_are_an_error() -> None:
    with pytest.raises(ValueError, match="without classes"):
        build(MODEL, 1)(torch.randn(1, 1, 8, 8), torch.tensor([3]), torch.tensor([0]))


def test_starts_by_predicting_nothing() -> None:
    network = UNet(MODEL, 1, 3)
    assert network(torch.randn(2, 1, 8, 8), torch.tensor([3, 50])).abs().max() == 0


def test_dropout_is_active_in_training_alone() -> None:
    network = build(changed(MODEL, dropout=0.5), 1)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 50])
    torch.testing.assert_close(network(x, t), network(x, t))
    network.train()
    assert (network(x, t) - network(x, t)).abs().max() > 1e-3


def test_timestep_embedding_against_the_formula() -> None:
    found = timestep_embedding(torch.tensor([0, 7]), 6)
    frequencies = [10_000.0 ** -(i / 2) for i in range(3)]
    expected = torch.tensor(
        [
            [*[0.0] * 3, *[1.0] * 3],
            [*[torch.tensor(7 * f).sin() for f in frequencies], *[torch.tensor(7 * f).cos() for f in frequencies]],
        ]
    )
    torch.testing.assert_close(found, expected)


def test_the_network_of_ho_et_al_has_their_number_of_parameters() -> None:
    p = changed(
        MODEL, width=128, channel_multipliers=[1, 2, 2, 2], blocks_per_level=2, norm_groups=32, attention_levels=[1]
    )
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in UNet(p, 3).parameters())
    assert round(count / 1e6, 1) == 35.7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [16, 1025])
def test_attention_is_that_of_the_paper(dtype: torch.dtype, tokens: int, device: torch.device) -> None:
    q, k, v = torch.randn(3, 2, 3, tokens, 8, device=device).to(dtype)
    weights = (q.double() @ k.double().transpose(-1, -2) / 8**0.5).softmax(-1)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    found = attention(q, k, v)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), weights @ v.double(), atol=tolerance, rtol=tolerance)
