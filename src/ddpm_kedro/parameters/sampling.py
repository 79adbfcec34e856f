"""The groups of what is done with a model: drawing, tasks, judging, reporting, tracking, import."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from ddpm_kedro.parameters.base import AnyWord, Device, Group, Precision, Seed, Share, Text, TextPath


class SamplingParameters(Group):
    """Drawing images with a trained model."""

    num_images: PositiveInt
    seed: Seed
    """Image i of seed s is the same picture in a batch of any size."""
    label: Annotated[Text | None, AnyWord()]
    """One class, by name or number; null samples every class equally often."""
    sampler: Literal["ddpm", "ddim", "dpm_solver++", "heun"]
    num_inference_steps: PositiveInt
    """Of the sampler. Each asks the network once; heun twice, but for the last."""
    timestep_spacing: Literal["trailing", "leading", "linspace", "karras"]
    """Which timesteps are visited (Lin et al. 2024, table 2; Karras et al. 2022, eq. 5)."""
    karras_rho: Annotated[float, Field(ge=1)]
    threshold: Literal["clamp", "dynamic", "none"]
    """What keeps the predicted x_0 in [-1, 1]: dynamic is that of Saharia et al. (2022)."""
    guidance_scale: Annotated[float, Field(ge=0)] | None
    """1 for none; above, samples follow their class more closely and vary less. Null: 1.75 where the model was
    trained with classes and with ``training.label_dropout``, else 1."""
    guidance_interval: tuple[NonNegativeFloat, PositiveFloat] | None
    """Noise levels sigma / alpha with guidance (Kynkäänniemi et al. 2024); null for all."""
    ddim_eta: Annotated[float, Field(ge=0, le=1)]
    """0 draws no noise after the first; 1 is ancestral."""
    ddpm_variance: Literal["small", "large"]
    """Posterior variance beta tilde, or beta (Ho et al. 2020, section 3.2)."""
    batch_size: PositiveInt
    device: Device
    precision: Precision

    excluded_from_fingerprint: ClassVar[frozenset[str]] = frozenset({"batch_size", "device", "precision"})


class ImageToImageParameters(Group):
    """Variations of pictures."""

    num_images: PositiveInt
    strengths: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)]
    """Shares of the steps that are taken: how far a picture is noised before it is drawn again."""


class InpaintingParameters(Group):
    """Drawing a part of a picture anew."""

    num_images: PositiveInt
    box: tuple[Share, Share, Share, Share]
    """Without a mask, what is drawn anew: top, left, bottom, right as shares of height and width."""
    variants: PositiveInt
    """Rows, each with a seed of its own."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        top, left, bottom, right = self.box
        if top >= bottom or left >= right:
            raise ValueError(
                f"box = {list(self.box)} is empty: top, left, bottom, right are expected, such as 0.5,0,1,1"
            )
        return self


class InterpolationParameters(Group):
    """What lies between the pictures of two seeds."""

    num_images: PositiveInt
    """Rows."""
    seeds: tuple[Seed, Seed]
    frames: Annotated[int, Field(ge=2)]
    """Pictures of a row, both ends included."""


class EvaluationParameters(Group):
    """How samples are judged."""

    extractor: Literal["classifier", "inception"]
    """What images are compared by: a small classifier fitted to the training images' labels, or Inception-v3."""
    inception_weights: TextPath | None
    """File of torch-fidelity's Inception weights; null downloads them."""
    seed: Seed
    """Of the classifier's fit."""
    fit_images: PositiveInt
    """Images that the classifier sees while it is fitted."""
    fit_batch_size: PositiveInt
    reference_images: PositiveInt
    """Training images that samples are compared with, at most."""
    kid_subsets: PositiveInt
    """Random subsets of 1,000 images, or as many as there are, over which KID is averaged."""
    timestep_bins: PositiveInt
    """Points of the validation loss over timesteps."""
    shown: PositiveInt
    """Samples shown beside their nearest training images."""

    def fitting(self) -> dict[str, Any]:
        """What shapes the extractor, as plain data."""
        return self.model_dump(mode="json", include={"extractor", "seed", "fit_images", "fit_batch_size"})


class ReportingParameters(Group):
    """What the report shows."""

    film_frames: PositiveInt
    """Previews of the training in its film, at most."""
    trajectory_images: PositiveInt
    """Images whose way out of the noise is shown."""
    trajectory_steps: PositiveInt
    """Steps of that way."""


class TrackingParameters(Group):
    """Weights & Biases."""

    mode: Literal["auto", "disabled", "offline", "online"]
    """auto is as WANDB_MODE says, else online where there is a key (WANDB_API_KEY or `wandb login`), else offline."""
    project: Text | None
    """null is ddpm_kedro, unless WANDB_PROJECT is set: variables of W&B count where a parameter is null or auto."""
    entity: Text | None
    """User or team; null for the key's own."""
    name: Text | None
    """What the run is called; null lets W&B invent one."""
    group: Text | None
    """Runs that belong together, such as those of a sweep."""


class ImportModelParameters(Group):
    """A model in diffusers' format."""

    path: TextPath | None
    """Its folder."""
    class_names: tuple[Text, ...] | None
    """Of a model with classes; null calls them by their numbers."""
