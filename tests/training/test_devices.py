"""Every tensor is moved to where the network is: told without a GPU, by a fake one."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException

from ddpm_kedro.images.augmentation import read_pixels
from ddpm_kedro.images.store import ImageStore
from tests.fake_gpu import GPU, fake_gpu
from tests.synchronisations import BlockingCopies
from tests.training.test_step import make_trainer

AUGMENTATION = {"horizontal_flip": True, "vertical_flip": True, "crop_padding": 1}


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
    assert [tensor.device.type for tensor in (*batch, loss, norm)] == ["cuda"] * 6


def test_making_a_batch_does_not_wait_for_the_device(store: ImageStore) -> None:
    pixels = read_pixels(store, torch.arange(8))
    with fake_gpu():
        trainer = make_trainer(store, GPU, augmentation=AUGMENTATION, training={"label_dropout": 0.5})
        with BlockingCopies() as seen:
            trainer.batch(0, pixels)
            torch.zeros(1).to(GPU.device)  # one that does wait is seen
    assert seen.count == 1


def test_validation_leaves_nothing_on_the_cpu(store: ImageStore) -> None:
    """A fake has no values: what ends the test is that the finished loss is read."""
    with fake_gpu(), pytest.raises(DataDependentOutputException, match="_local_scalar_dense"):
        make_trainer(store, GPU).validation_loss()
