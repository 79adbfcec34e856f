"""A model of this project and diffusers' pipeline with the same network, weights and schedule."""

from typing import Any

import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

from ddpm_kedro.diffusion import SamplingPlan
from ddpm_kedro.models import RunRecord, TrainedModel, UNet, to_diffusers
from ddpm_kedro.parameters import DiffusionParameters, ModelParameters
from ddpm_kedro.provenance import Provenance


def make_pair(
    p: ModelParameters, image_shape: tuple[int, int, int], steps: int, device: str = "cpu"
) -> tuple[TrainedModel, SamplingPlan, Any]:
    """Return a model with random weights, its plan for DDIM, and the equivalent ``DDIMPipeline``.

    Args:
        p: the network's parameters.
        image_shape: (C, H, W).
        steps: number of DDIM steps.
        device: of both models.
    """
    diffusion = DiffusionParameters(num_timesteps=1000, schedule="linear", target="noise")
    torch.manual_seed(0)
    groups = {"model": p.model_dump(mode="json"), "diffusion": diffusion.model_dump(mode="json")}
    network = UNet(p, image_shape[0]).eval()
    model = TrainedModel(network, RunRecord(Provenance(groups, {}), image_shape, ()), 0)
    exported = to_diffusers(model)
    (config, weights), scheduler = exported.unet, exported.scheduler
    theirs = UNet2DModel.from_config(config)
    theirs.load_state_dict(weights)
    pipeline = DDIMPipeline(theirs.eval(), DDIMScheduler.from_config(scheduler)).to(device)
    pipeline.set_progress_bar_config(disable=True)
    network.to(device).to(memory_format=torch.channels_last)
    return model, SamplingPlan(diffusion, "ddim", steps), pipeline
