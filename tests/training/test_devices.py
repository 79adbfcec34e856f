"""Every tensor is moved to the device of the network; a fake GPU detects the tensors that are not."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException

from ddpm_kedro.images.pixels import read_pixels
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.models.blocks import GroupNorm
from tests.fake_gpu import GPU, fake_gpu
from tests.synchronisations import BlockingCopies
from tests.training.test_step import make_trainer

AUGMENTATION = {"horizontal_flip": True, "vertical_flip": True, "crop_padding": 1, "non_leaking": 0.3}


@pytest.mark.parametrize("target", ["noise", "v"])
def test_a_training_step_leaves_nothing_on_the_cpu(
    target: str, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = read_pixels(store, torch.arange(8))
    with fake_gpu():
        trainer = make_trainer(store, GPU, diffusion={"target": target}, augmentation=AUGMENTATION)

        def backward(_: Tensor) -> None:  # autograd asks the driver for its device
            for parameter in trainer.network.parameters():
                parameter.grad = torch.zeros_like(parameter)

        monkeypatch.setattr(Tensor, "backward", backward)
        batch = trainer.batch(0, pixels)
        loss, norm, _ = trainer.step(0, pixels)
    assert [tensor.device.type for tensor in (*batch, loss, norm)] == ["cuda"] * 7


def test_making_a_batch_does_not_wait_for_the_device(store: ImageStore) -> None:
    pixels = read_pixels(store, torch.arange(8))
    with fake_gpu():
        trainer = make_trainer(store, GPU, augmentation=AUGMENTATION, training={"label_dropout": 0.5})
        with BlockingCopies() as seen:
            trainer.batch(0, pixels)
            torch.zeros(1).to(GPU.device)  # one that does wait is seen
    assert seen.count == 1


@pytest.fixture
def autocast() -> Iterator[None]:
    """Turn on autocast for GPUs, which torch leaves off without a GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    yield
    torch.set_autocast_enabled("cuda", before[0])
    torch.set_autocast_dtype("cuda", before[1])


@pytest.mark.usefixtures("autocast")
def test_norms_stay_in_the_precision_of_their_input() -> None:
    with fake_gpu():
        x = torch.ones(2, 8, 4, 4, dtype=torch.bfloat16, device="cuda")
        normed = [kind(4, 8).to("cuda")(x).dtype for kind in (torch.nn.GroupNorm, GroupNorm)]
    assert normed == [torch.float32, torch.bfloat16]  # and torch's does not


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_norms_equal_those_of_torch(precision: torch.dtype, device: torch.device) -> None:
    torch.manual_seed(0)
    ours, torchs = (kind(4, 8).to(device) for kind in (GroupNorm, torch.nn.GroupNorm))
    for norm in (ours, torchs):
        norm.load_state_dict({"weight": torch.linspace(-1, 2, 8), "bias": torch.linspace(3, -1, 8)})
    x = (5 + 3 * torch.randn(2, 8, 4, 4)).to(device, precision)
    expected, tolerance = torchs(x.float()), 1e-6 if precision == torch.float32 else 2e-2
    torch.testing.assert_close(ours(x).float(), expected, rtol=tolerance, atol=tolerance)


def test_validation_leaves_nothing_on_the_cpu(store: ImageStore) -> None:
    """A fake tensor has no values: the test ends when the final loss is read."""
    with fake_gpu(), pytest.raises(DataDependentOutputException, match="_local_scalar_dense"):
        make_trainer(store, GPU).validation_loss()
