"""Convert a model in diffusers' format to this project's."""

import logging

from ddpm_kedro.images.class_names import readable
from ddpm_kedro.models import DiffusersModel, TrainedModel, from_diffusers
from ddpm_kedro.parameters import ImportModelParameters

logger = logging.getLogger(__name__)


def convert_model(
    model_to_import: DiffusersModel, import_model: ImportModelParameters
) -> tuple[TrainedModel, TrainedModel]:
    """Convert a model, and return it twice: training replaces the first and may start from the second.

    Raises:
        UserError: for values that this project does not support, and for weights that do not fit.
    """
    names = import_model.class_names
    model = from_diffusers(model_to_import, None if names is None else tuple(readable(names)))
    diffusion = model.diffusion
    logger.info(
        "Imported a U-Net of %.1f M parameters, for images %s (channels, height, width) and %d classes; %s schedule of "
        "%d timesteps, predicts %s.",
        sum(parameter.numel() for parameter in model.network.parameters()) / 1e6,
        "×".join(map(str, model.image_shape)),
        len(model.class_names),
        diffusion.schedule,
        diffusion.num_timesteps,
        diffusion.target,
    )
    return model, model
