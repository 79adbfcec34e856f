"""The mathematics of diffusion: from x_0 to x_t = alpha · x_0 + sigma · noise, and back."""

from ddpm_kedro.diffusion.denoiser import THRESHOLDS, Denoiser
from ddpm_kedro.diffusion.losses import diffusion_loss
from ddpm_kedro.diffusion.noise import derive_seed, generator_for, image_noise, seed_global_state, slerp
from ddpm_kedro.diffusion.samplers import SAMPLERS, Sampler, ddim, ddpm, dpm_solver, heun
from ddpm_kedro.diffusion.sampling import SamplingPlan, generate_images
from ddpm_kedro.diffusion.schedules import CLEAN, Schedule, Step, make_schedule
from ddpm_kedro.diffusion.spacings import SPACINGS
from ddpm_kedro.diffusion.targets import TARGETS, WEIGHTINGS, Target

__all__ = [
    "CLEAN",
    "SAMPLERS",
    "SPACINGS",
    "TARGETS",
    "THRESHOLDS",
    "WEIGHTINGS",
    "Denoiser",
    "Sampler",
    "SamplingPlan",
    "Schedule",
    "Step",
    "Target",
    "ddim",
    "ddpm",
    "derive_seed",
    "diffusion_loss",
    "dpm_solver",
    "generate_images",
    "generator_for",
    "heun",
    "image_noise",
    "make_schedule",
    "seed_global_state",
    "slerp",
]
