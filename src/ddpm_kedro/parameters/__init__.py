"""Checked parameters: one frozen Pydantic model per group, in the order of ``conf/base/parameters.yml``.

Kedro builds these models from the YAML before any node runs, by the annotations of the nodes' arguments.
"""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import ValidationError, model_validator

from ddpm_kedro.errors import ConflictError, UserError, nearest
from ddpm_kedro.parameters.base import AnyWord, APath, Device, Group, Precision
from ddpm_kedro.parameters.ingestion import DatasetParameters, ImagesParameters
from ddpm_kedro.parameters.optimizer import OptimizerParameters
from ddpm_kedro.parameters.run import RunParameters
from ddpm_kedro.parameters.sampling import (
    EvaluationParameters,
    ImageToImageParameters,
    ImportModelParameters,
    InpaintingParameters,
    InterpolationParameters,
    ReportingParameters,
    SamplingParameters,
    TrackingParameters,
)
from ddpm_kedro.parameters.training import (
    AugmentationParameters,
    DiffusionParameters,
    ModelParameters,
    TrainingParameters,
)


class Parameters(Group):
    """All parameters of the project."""

    use: dict[str, str | None]
    """The chosen option of each group: see ``ddpm_kedro.config``."""
    run: RunParameters
    dataset: DatasetParameters
    images: ImagesParameters
    augmentation: AugmentationParameters
    model: ModelParameters
    diffusion: DiffusionParameters
    optimizer: OptimizerParameters
    training: TrainingParameters
    sampling: SamplingParameters
    image_to_image: ImageToImageParameters
    inpainting: InpaintingParameters
    interpolation: InterpolationParameters
    evaluation: EvaluationParameters
    reporting: ReportingParameters
    tracking: TrackingParameters
    import_model: ImportModelParameters

    @model_validator(mode="after")
    def _previews_are_possible(self) -> Self:
        steps, timesteps = self.training.preview_steps, self.diffusion.num_timesteps
        if self.training.preview_images and steps > timesteps:
            raise ValueError(
                f"training.preview_steps = {steps} is more than diffusion.num_timesteps = {timesteps}; "
                "lower the first, or set training.preview_images=0"
            )
        return self


def check_parameters(raw: Mapping[str, Any]) -> Parameters:
    """Build all groups from plain data; raise UserError with one line per value that is not accepted."""
    try:
        return Parameters.model_validate(raw)
    except ValidationError as error:
        conflict = all(problem["type"] == "value_error" for problem in error.errors())
        kind = ConflictError if conflict else UserError
        found: dict[tuple[Any, ...], list[Any]] = {}
        for problem in error.errors():
            found.setdefault(problem["loc"][:2], []).append(problem)
        raise kind("\n".join(_explain(*problems) for problems in found.values())) from None


def _explain(problem: Any, *others: Any) -> str:
    """Return one line about a wrong value: its full name, what was found, what is accepted.

    A value that may have one of several types has several problems.
    """
    places = [key for key in problem["loc"][2:] if isinstance(key, int)]
    keys = [str(key) for key in (*problem["loc"][:2], *places)]
    name = ".".join(keys)
    match problem["type"]:
        case "extra_forbidden":
            group: Any = Parameters if len(keys) == 1 else Parameters.model_fields[keys[0]].annotation
            return f"Unknown parameter '{name}'. {nearest(keys[-1], list(group.model_fields))}"
        case "replaced":
            return f"{problem['msg']}."
        case "missing":
            return f"Parameter '{name}' is missing."
        case "value_error":
            where = f"Parameter '{name}': " if name else ""  # otherwise the values of two groups conflict
            return f"{where}{problem['ctx']['error']}."
        case _:
            accepted = ", or ".join(each["msg"].lower() for each in (problem, *others))
            return f"Parameter '{name}' = {problem['input']!r}: {accepted}."
