"""The networks, trained models and diffusers' format."""

from ddpm_kedro.models.diffusers_format import DiffusersModel, from_diffusers, to_diffusers, unsupported_reason
from ddpm_kedro.models.networks import NETWORKS, build_network
from ddpm_kedro.models.record import RunRecord
from ddpm_kedro.models.trained import TrainedModel
from ddpm_kedro.models.unet import UNet
from ddpm_kedro.models.weights import weights_fingerprint

__all__ = [
    "NETWORKS",
    "DiffusersModel",
    "RunRecord",
    "TrainedModel",
    "UNet",
    "build_network",
    "from_diffusers",
    "to_diffusers",
    "unsupported_reason",
    "weights_fingerprint",
]
