"""The mathematics of diffusion: x_t = alpha · x_0 + sigma · noise, and the way back."""

from ddpm_kedro.diffusion.denoiser import THRESHOLDS, Denoiser
from ddpm_kedro.diffusion.losses import diffusion_loss
from ddpm_kedro.diffusion.noise import derive_seed, generator_for, image_noise, seeded_globally, slerp
from ddpm_kedro.diffusion.samplers import SAMPLERS, ddim, ddpm, dpm_solver, heun
from ddpm_kedro.diffusion.sampling import SamplingPlan, draw_images
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
    "SamplingPlan",
    "Schedule",
    "Step",
    "Target",
    "ddim",
    "ddpm",
    "derive_seed",
    "diffusion_loss",
    "dpm_solver",
    "draw_images",
    "generator_for",
    "heun",
    "image_noise",
    "make_schedule",
    "seeded_globally",
    "slerp",
]
