"""The parameter groups that use a model: sampling, tasks, evaluation, reporting, tracking, import."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from ddpm_kedro.parameters.base import AnyWord, Device, Group, NotInFingerprint, Precision, Seed, Share, Text, TextPath


class SamplingParameters(Group):
    """Sampling with a trained model."""

    num_images: PositiveInt
    seed: Seed
    """The image i of a seed does not depend on the batch size."""
    label: Annotated[Text | None, AnyWord()]
    """Class name or number; null samples every class equally often."""
    sampler: Literal["ddpm", "ddim", "dpm_solver++", "heun"]
    num_inference_steps: PositiveInt
    """Steps of the sampler. A step is one network evaluation; heun: two, except in the last step and from almost pure
    noise."""
    timestep_spacing: Literal["trailing", "leading", "linspace", "karras"]
    """The timesteps to visit (Lin et al. 2024, table 2; Karras et al. 2022, eq. 5)."""
    karras_rho: Annotated[float, Field(ge=1)]
    """Exponent of the karras spacing."""
    threshold: Literal["clamp", "dynamic", "none"]
    """How the predicted x_0 is kept in [-1, 1]; dynamic: Saharia et al. (2022)."""
    guidance_scale: Annotated[float, Field(ge=0)] | None
    """1: no guidance; larger: samples match their class better and vary less. null: 1.75 for a model with classes and
    ``training.label_dropout``, otherwise 1."""
    guidance_interval: tuple[NonNegativeFloat, PositiveFloat] | None
    """Noise levels sigma / alpha with guidance (Kynkäänniemi et al. 2024); null for all."""
    ddim_eta: Annotated[float, Field(ge=0, le=1)]
    """0: deterministic; 1: ancestral sampling."""
    ddpm_variance: Literal["small", "large"]
    """Posterior variance: beta tilde (small) or beta (large) (Ho et al. 2020, section 3.2)."""
    batch_size: NotInFingerprint[PositiveInt]
    device: NotInFingerprint[Device]
    precision: NotInFingerprint[Precision]


class ImageToImageParameters(Group):
    """Variations of images."""

    num_images: PositiveInt
    strengths: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)]
    """Fractions of the steps: how much noise is added to an image before it is denoised."""


class InpaintingParameters(Group):
    """Replacing a part of an image."""

    num_images: PositiveInt
    box: tuple[Share, Share, Share, Share]
    """The part to replace if there is no mask: top, left, bottom, right as fractions of height and width."""
    variants: PositiveInt
    """Number of rows; each has its own seed."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        top, left, bottom, right = self.box
        if top >= bottom or left >= right:
            raise ValueError(
                f"box = {list(self.box)} is empty: top, left, bottom, right are expected, such as 0.5,0,1,1"
            )
        return self


class InterpolationParameters(Group):
    """Interpolation between the images of two seeds."""

    num_images: PositiveInt
    """Number of rows."""
    seeds: tuple[Seed, Seed]
    frames: Annotated[int, Field(ge=2)]
    """Images per row, including both ends."""


class EvaluationParameters(Group):
    """Evaluation of samples."""

    extractor: Literal["classifier", "simclr", "inception"]
    """The feature extractor: a small classifier trained on the labels of the training images (for images without
    classes, simclr), a network trained without labels (SimCLR), or Inception-v3."""
    inception_weights: TextPath | None
    """File with torch-fidelity's Inception weights; null downloads it."""
    seed: Seed
    """Seed of the extractor's training."""
    fit_images: PositiveInt
    """Length of the extractor's training in images seen. It has an effect once per set of images: see ``refit``."""
    fit_batch_size: PositiveInt
    refit: bool
    """Whether to train an extractor with exactly ``fit_images``. Otherwise the extractor that is kept for the same
    images is used, whatever its length, so that the metrics of all runs on these images can be compared."""
    device: NotInFingerprint[Device]
    reference_images: PositiveInt
    """Maximum number of training images to compare samples with."""
    kid_subsets: PositiveInt
    """Number of random subsets over which KID is averaged, each of 1,000 images or all of them if there are fewer."""
    timestep_bins: PositiveInt
    """Number of points in the plot of the validation loss by timestep."""
    shown: PositiveInt
    """Number of samples in the figure of nearest training images."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return the values that affect the result; without ``refit``, not ``fit_images``."""
        fields = super().fingerprint_fields()
        return fields if self.refit else {name: value for name, value in fields.items() if name != "fit_images"}

    def fitting(self) -> dict[str, Any]:
        """Return the parameters that affect the extractor, as plain data."""
        return self.model_dump(mode="json", include={"extractor", "seed", "fit_images", "fit_batch_size"})


class ReportingParameters(Group):
    """Figures of the report."""

    film_frames: PositiveInt
    """Maximum number of previews in the animation of the training."""
    trajectory_images: PositiveInt
    """Number of images in the figure of the denoising trajectory."""
    trajectory_steps: PositiveInt
    """Number of steps in that figure."""


class TrackingParameters(Group):
    """Tracking with Weights & Biases."""

    mode: Literal["auto", "disabled", "offline", "online"]
    """auto: WANDB_MODE if set, otherwise online with an API key (WANDB_API_KEY or `wandb login`), offline without."""
    project: Text | None
    """null: WANDB_PROJECT if set, otherwise ddpm_kedro. W&B's variables apply wherever a parameter is null or auto."""
    entity: Text | None
    """User or team; null: the default of the API key."""
    name: Text | None
    """Name of the run; null: W&B chooses one."""
    group: Text | None
    """Name of a group of runs, such as a sweep."""


class ImportModelParameters(Group):
    """Import of a model in diffusers' format."""

    path: TextPath | None
    """Folder of the model."""
    class_names: tuple[Text, ...] | None
    """Names of the model's classes; null: their numbers."""
