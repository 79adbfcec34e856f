"""Fit a feature extractor on any device; a fit that was interrupted resumes from its saved state."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ddpm_kedro.diffusion import seed_global_state
from ddpm_kedro.hardware import choose_hardware
from ddpm_kedro.images.pixels import read_pixels, to_float
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.metrics.backbone import Backbone, reduce_images
from ddpm_kedro.parameters import EvaluationParameters
from ddpm_kedro.progress import progress

logger = logging.getLogger(__name__)
PEAK_LR = 3e-3
SCALE_IMAGES = 1000  # training images that the scale of the features is computed from
PIXELS = 2**20  # of a batch without gradients
SAVE_INTERVAL = 15.0  # seconds between two saved states
State = dict[str, Any]
Network = TypeVar("Network", bound=Backbone)


@dataclass(frozen=True)
class SavedState:
    """Functions that load and save the state of an unfinished fit; by default nothing is saved."""

    load: Callable[[], State | None] = lambda: None
    save: Callable[[State], None] = lambda state: None


NOT_SAVED = SavedState()


def fit(
    make: Callable[[], Network],
    loss: Callable[[Network, Tensor, Tensor], Tensor],
    store: ImageStore,
    num_images: int,
    batch_size: int,
    parameters: EvaluationParameters,
    saved: SavedState,
) -> Network:
    """Minimize a loss of the network for images in random order; scale its features to a mean square of 1.

    On a CPU the result is the same for the same images and parameters, whether the fit was interrupted or not.

    Args:
        make: function that makes the untrained network.
        loss: function of the network, images (N, C, H, W) on its device, and their indices (N,) on the CPU.
        num_images: length of the fit in images seen.
    """
    device, steps = choose_hardware(parameters.device, "fp32").device, -(-num_images // batch_size)
    with seed_global_state(parameters.seed, device):
        network = make().to(device)
        optimizer = torch.optim.AdamW(network.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, max(steps, 2))
        order = torch.cat([torch.randperm(len(store)) for _ in range(-(-num_images // len(store)))])
        keeper = _Keeper({"network": network, "optimizer": optimizer, "schedule": schedule}, device, saved)
        logger.debug("Fitting the feature extractor on %s", device)
        with progress("fitting the feature extractor", steps, "steps") as advance:
            advance(first := keeper.restore())
            for step, batch in enumerate(order.split(batch_size)[first:steps], first + 1):
                indices = batch.sort().values
                images = reduce_images(to_float(read_pixels(store, indices), device))
                optimizer.zero_grad()
                loss(network, images, indices).backward()
                optimizer.step()
                schedule.step()
                keeper.save_if_due(step)
                advance(1)
    network.eval().requires_grad_(False)
    network.scale = _root_mean_square(network, store, device)
    return network


class _Keeper:
    """Save and restore everything that the following steps depend on."""

    def __init__(self, parts: dict[str, Any], device: torch.device, saved: SavedState) -> None:
        self.parts, self.device, self.saved = parts, device, saved
        self.clock, self.announced = time.monotonic(), False

    def restore(self) -> int:
        """Load the saved state, if any; return the number of its steps."""
        state = self.saved.load()
        if state is None:
            return 0
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and "random_of_gpu" in state:
            torch.cuda.set_rng_state(state["random_of_gpu"], self.device)
        logger.info("The fit resumes after %d steps.", state["step"])
        return int(state["step"])

    def save_if_due(self, step: int) -> None:
        """Save the state after a number of steps, unless it was saved a short time ago."""
        if time.monotonic() - self.clock < SAVE_INTERVAL:
            return
        if not self.announced:  # a short fit is not worth a line
            logger.info("Fitting the feature extractor on %s: %d steps so far", self.device, step)
            self.announced = True
        state = {"step": step, "random": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["random_of_gpu"] = torch.cuda.get_rng_state(self.device)
        self.saved.save(state | {name: part.state_dict() for name, part in self.parts.items()})
        self.clock = time.monotonic()


def _root_mean_square(network: Backbone, store: ImageStore, device: torch.device) -> Tensor:
    spread = torch.linspace(0, len(store) - 1, min(len(store), SCALE_IMAGES)).long()
    features = [
        network.encode(to_float(read_pixels(store, rows), device))
        for rows in spread.split(batch_size_for(store.image_shape))
    ]
    return torch.cat(features).square().mean().sqrt().clamp(min=1e-6)


def batch_size_for(image_shape: tuple[int, int, int]) -> int:
    """Return how many images of this shape (C, H, W) a network without gradients gets at once."""
    return max(1, PIXELS // (image_shape[1] * image_shape[2]))
