"""Checked parameters: one frozen Pydantic model a group, in the order of ``conf/base/parameters.yml``.

Kedro builds these models from the YAML before any node runs; a node's annotation names its group.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0, lt=1)]
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class UserError(Exception):
    """A person's mistake. The message says what was found, where, and what to do; no traceback is shown."""


class ConflictError(UserError):
    """Each value is accepted by itself, but not together with another one."""


class DivergedError(UserError):
    """These parameters do not train."""


def nearest(word: str, accepted: list[str]) -> str:
    """The end of an error message that suggests what may have been meant.

    >>> nearest("batch_sise", ["batch_size", "seed"])
    "Did you mean 'batch_size'? Accepted: batch_size, seed."
    """
    close = get_close_matches(word, accepted, n=3, cutoff=0.5)
    meant = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{meant}Accepted: {', '.join(accepted)}."


class Group(BaseModel):
    """A group of parameters: unknown keys are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    without_effect: ClassVar[frozenset[str]] = frozenset()
    """Names whose values do not shape what is made, so that they may change between a run and its continuation."""

    def shaping(self) -> dict[str, Any]:
        """The values that decide what is made, as plain data: what names a run."""
        return self.model_dump(mode="json", exclude=set(self.without_effect))


class DatasetParameters(Group):
    """Where the images come from."""

    source: str
    """A name in the table of ``ddpm_kedro.images.sources``: mnist5k, cifar10, …"""
    download_folder: str
    """Folder for downloaded archives, relative to where ``kedro run`` is called."""

    without_effect: ClassVar[frozenset[str]] = frozenset({"download_folder"})


class ImagesParameters(Group):
    """How the images are divided."""

    holdout_fraction: Annotated[float, Field(gt=0, lt=1)]
    """Share of each class kept from training, where the source has no test split of its own."""
    seed: NonNegativeInt


class AugmentationParameters(Group):
    """Random changes of the training images, each with a seed of its own per step."""

    horizontal_flip: bool
    vertical_flip: bool
    crop_padding: NonNegativeInt
    """Pixels of padding before a random crop back to the same size; 0 for no crop."""


class ModelParameters(Group):
    """The U-Net (Ho et al. 2020, Appendix B). Number of channels and classes come from the data."""

    width: Annotated[PositiveInt, Field(multiple_of=2, ge=4)]
    """Channels at full resolution."""
    channel_multipliers: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    """Channels of each level, as multiples of ``width``; every level halves the resolution of the one before."""
    blocks_per_level: PositiveInt
    """Residual blocks of each level on the way down; one more on the way up."""
    attention_levels: tuple[NonNegativeInt, ...]
    """Levels with self-attention, 0 the finest. The bottom always has it."""
    head_channels: PositiveInt | None
    """Channels of one attention head; null for a single head."""
    norm_groups: PositiveInt
    """Groups of GroupNorm; must divide the channels of every level."""
    norm_eps: PositiveFloat
    dropout: Fraction
    patch_size: PositiveInt
    """Pixels of a side that are folded into channels before the first convolution; 1 for none."""
    class_conditional: bool
    """Learn the classes, where the data has some."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        widths = [self.width * m for m in self.channel_multipliers]
        for name, divisor in (("norm_groups", self.norm_groups), ("head_channels", self.head_channels)):
            if divisor and (uneven := [w for w in widths if w % divisor]):
                raise ValueError(
                    f"{name} = {divisor} does not divide {uneven[0]}, the channels of a level (levels: {widths}); "
                    f"choose a width that is a multiple of {divisor}, or another {name}"
                )
        if beyond := [level for level in self.attention_levels if level >= len(widths)]:
            raise ValueError(f"attention_levels names level {beyond[0]}, but the levels are 0 to {len(widths) - 1}")
        return self


class DiffusionParameters(Group):
    """The noise schedule and what the network learns to predict."""

    num_timesteps: Annotated[int, Field(ge=2)]
    """T."""
    schedule: Literal["linear", "scaled_linear", "cosine", "sigmoid", "edm", "flow"]
    """Betas of a variance-preserving process; or EDM (Karras et al. 2022), or rectified flow (Liu et al. 2023)."""
    target: Literal["noise", "x0", "v", "edm", "velocity"]
    """Noise (Ho et al. 2020), x_0, v = alpha · noise - sigma · x_0 (Salimans and Ho 2022), EDM's F, noise - x_0."""
    weighting: Literal["none", "min_snr"] = "none"
    """Of the loss along the noise: min(SNR, gamma) for the error of x_0 (Hang et al. 2023), or none."""
    min_snr_gamma: PositiveFloat = 5.0
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    """First beta of the linear, scaled_linear and sigmoid schedules."""
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Their last beta."""
    zero_terminal_snr: bool = False
    """Let the last timestep be pure noise (Lin et al. 2024), where the schedule has betas."""
    sigma_min: PositiveFloat = 0.002
    """Least noise of the EDM schedule."""
    sigma_max: PositiveFloat = 80.0
    """Most noise of the EDM schedule."""
    rho: Annotated[float, Field(ge=1)] = 7.0
    """Of the EDM schedule: how much closer its noise levels lie where there is little noise."""
    log_sigma_mean: float = -1.2
    """P_mean: in training with the EDM schedule, log sigma is normally distributed."""
    log_sigma_std: PositiveFloat = 1.2
    """P_std."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for low, high in (("beta_start", "beta_end"), ("sigma_min", "sigma_max")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} = {getattr(self, low)} is above {high} = {getattr(self, high)}")
        return self

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.zero_terminal_snr and self.schedule in {"edm", "flow"}:
            raise ValueError(f"zero_terminal_snr is for schedules with betas; {self.schedule} has none")
        if self.target == "noise" and (self.zero_terminal_snr or self.schedule == "flow"):
            what = "zero_terminal_snr" if self.zero_terminal_snr else "schedule = flow"
            raise ValueError(
                f"{what} ends in pure noise, where target = noise says nothing about the image; "
                "choose target = v or x0, and sample with trailing spacing"
            )
        return self


class OptimizerParameters(Group):
    """The optimizer and its learning rate."""

    name: Literal["adam", "adamw", "sgd"]
    lr: PositiveFloat
    """Peak learning rate."""
    betas: tuple[Fraction, Fraction] | None = None
    """Decay rates of Adam's two averages; for adam and adamw alone."""
    momentum: Fraction | None = None
    """For sgd alone."""
    weight_decay: NonNegativeFloat
    warmup_images: NonNegativeInt
    """Images over which the learning rate rises linearly from 0."""
    lr_schedule: Literal["constant", "cosine"]
    """After the warm-up: constant, or a half cosine down to ``final_lr_fraction`` at the last image."""
    final_lr_fraction: Annotated[float, Field(ge=0, le=1)]
    max_grad_norm: PositiveFloat
    """Gradients are scaled down to this 2-norm."""

    @model_validator(mode="after")
    def _of_this_optimizer(self) -> Self:
        wanted, foreign = ("momentum", "betas") if self.name == "sgd" else ("betas", "momentum")
        if getattr(self, wanted) is None:
            raise ValueError(f"{self.name} needs {wanted}; choose it with use.optimizer={self.name}")
        if getattr(self, foreign) is not None:
            raise ValueError(f"{self.name} has no {foreign}; did you mean another use.optimizer?")
        return self


class TrainingParameters(Group):
    """The training loop. Progress is counted in images seen."""

    seed: NonNegativeInt
    initial_model: str | None
    """Folder of a model to start from; null starts from nothing. Its weights name the run, not where they lie."""
    batch_size: PositiveInt
    """Images of one step."""
    num_images: PositiveInt
    """Images seen in all; rounded up to whole batches."""
    ema_decay: Fraction
    """Of the averaged weights, per step; warmed up as min(decay, (1 + step) / (10 + step))."""
    label_dropout: Fraction
    """Share of labels replaced by the empty one, so that classifier-free guidance has an unconditional model."""
    report_interval: PositiveInt
    """Images between two rows of the history, two previews and two lines of the log."""
    checkpoint_interval: PositiveInt
    """Images between two checkpoints; the last step always writes one."""
    validation_images: PositiveInt
    """Images of the hold-out for the validation loss, at most."""
    preview_images: NonNegativeInt
    """Images of a preview; 0 for none."""
    preview_steps: PositiveInt
    """DDIM steps of a preview."""
    preview_guidance_scale: Annotated[float, Field(ge=0)]
    loader_workers: NonNegativeInt
    """Processes that read images ahead; 0 reads them in the training process."""
    device: Device
    precision: Precision
    deterministic: bool
    """Only algorithms that give the same bytes every time; on a GPU that costs speed."""

    without_effect: ClassVar[frozenset[str]] = frozenset(
        {
            "initial_model",
            "report_interval",
            "checkpoint_interval",
            "validation_images",
            "preview_images",
            "preview_steps",
            "preview_guidance_scale",
            "loader_workers",
            "device",
            "precision",
            "deterministic",
        }
    )


class SamplingParameters(Group):
    """Drawing images with a trained model."""

    num_images: PositiveInt
    seed: NonNegativeInt
    """Image i of seed s is the same picture in a batch of any size."""
    label: int | str | None
    """One class, by name or number; null draws every class equally often."""
    sampler: Literal["ddpm", "ddim", "dpm_solver++", "heun"]
    num_inference_steps: PositiveInt
    """Of the sampler. Each asks the network once; heun twice, but for the last."""
    timestep_spacing: Literal["trailing", "leading", "linspace", "karras"]
    """Which timesteps are visited (Lin et al. 2024, table 2; Karras et al. 2022, eq. 5)."""
    karras_rho: Annotated[float, Field(ge=1)]
    threshold: Literal["clamp", "dynamic", "none"]
    """What keeps the predicted x_0 in [-1, 1]: dynamic is that of Saharia et al. (2022)."""
    guidance_scale: Annotated[float, Field(ge=0)] | None
    """1 for none; above, samples follow their class more closely and vary less. Null: 1.75 with classes."""
    guidance_interval: tuple[NonNegativeFloat, PositiveFloat] | None
    """Noise levels sigma / alpha with guidance (Kynkäänniemi et al. 2024); null for all."""
    ddim_eta: Annotated[float, Field(ge=0, le=1)]
    """0 draws no noise after the first; 1 is ancestral."""
    ddpm_variance: Literal["small", "large"]
    """Posterior variance beta tilde, or beta (Ho et al. 2020, section 3.2)."""
    batch_size: PositiveInt
    device: Device
    precision: Precision

    without_effect: ClassVar[frozenset[str]] = frozenset({"batch_size", "device", "precision"})


Share = Annotated[float, Field(ge=0, le=1)]


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
    seeds: tuple[NonNegativeInt, NonNegativeInt]
    frames: Annotated[int, Field(ge=2)]
    """Pictures of a row, both ends included."""


class EvaluationParameters(Group):
    """How samples are judged."""

    extractor: Literal["classifier", "inception"]
    """What images are compared by: a small classifier fitted to the training images' labels, or Inception-v3."""
    inception_weights: str | None
    """File of torch-fidelity's Inception weights; null downloads them."""
    seed: NonNegativeInt
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
    """auto is online where there is a key (WANDB_API_KEY or `wandb login`), else offline."""
    project: str
    entity: str | None
    """User or team; null for the key's own."""
    name: str | None
    """What the run is called; null lets W&B invent one. Its id is that of the run, so that it goes on with it."""
    group: str | None
    """Runs that belong together, such as those of a sweep."""


class ImportModelParameters(Group):
    """A model in diffusers' format."""

    path: str | None
    """Its folder."""
    class_names: tuple[str, ...] | None
    """Of a model with classes; null calls them by their numbers."""


class Parameters(Group):
    """Every parameter of the project."""

    use: dict[str, str | None]
    """Which option of each group: see ``ddpm_kedro.config``."""
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


def check_parameters(raw: Mapping[str, Any]) -> Parameters:
    """Build all groups from plain data.

    Raises:
        UserError: with one line for each value that is not accepted.
    """
    try:
        return Parameters.model_validate(raw)
    except ValidationError as error:
        conflict = all(problem["type"] == "value_error" for problem in error.errors())
        kind = ConflictError if conflict else UserError
        raise kind("\n".join(_explain(problem) for problem in error.errors())) from None


def _explain(problem: Any) -> str:
    """One line about one wrong value: its full name, what was found, what is accepted."""
    keys = [str(key) for key in problem["loc"]]
    name = ".".join(keys)
    match problem["type"]:
        case "extra_forbidden":
            group: Any = Parameters if len(keys) == 1 else Parameters.model_fields[keys[0]].annotation
            return f"Unknown parameter '{name}'. {nearest(keys[-1], list(group.model_fields))}"
        case "missing":
            return f"Parameter '{name}' is missing."
        case "value_error":
            return f"Parameter '{name}': {problem['ctx']['error']}."
        case _:
            return f"Parameter '{name}' = {problem['input']!r}: {problem['msg'].lower()}."
