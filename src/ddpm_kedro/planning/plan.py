"""The plan of a training on your own images: each choice, and why."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ddpm_kedro.errors import UserError
from ddpm_kedro.parameters import Group
from ddpm_kedro.planning.expectation import expect
from ddpm_kedro.planning.rounding import duration, two_digits, two_figures
from ddpm_kedro.planning.sizing import (
    EXTRACTOR_SHARE,
    RESERVE,
    START_UP,
    Sizing,
    Task,
    choose_size,
    extractor_images,
    training_seconds,
)
from ddpm_kedro.progress import gigabytes
from ddpm_kedro.training.optimizers import recommended_learning_rate, recommended_warmup

LEAST = 1_000  # images: the least length of a training
EMA_SHARE, MOST_HALF_LIFE = 0.03, 500_000  # of the length, as for the digits; in images, as in EDM
SMALL_PASSES = 30  # from so many passes over the images on, a training gets dropout and more augmentation
DROPOUT = 0.1  # Ho et al. (2020), appendix B
NON_LEAKING = 0.12  # Karras et al. (2022), table 6: the probability for CIFAR-10
MOST_FIT_PASSES, LEAST_FIT_IMAGES = 10, 36_000  # the extractor's training: passes over the images, or images if few
OTHER_SIDES = (64, 128, 256)  # pixels
MORE_TIME = 6  # times the budget, in the hint for a better model
Row = tuple[str, str, str]
"""A choice, its value, and the reason."""


@dataclass
class Plan:
    """Parameters by group, and the table that explains them."""

    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    table: list[Row] = field(default_factory=list)

    @property
    def use(self) -> dict[str, str]:
        """Return the names of the chosen options."""
        augmentation = self.parameters["augmentation"]
        option = "flips" if augmentation["horizontal_flip"] else "none"
        return {"model": "chosen", "augmentation": "non_leaking" if augmentation["non_leaking"] else option}


class _Choices:
    """Collect choices; a given value replaces the chosen one."""

    def __init__(self, task: Task) -> None:
        self.given, self.accepted = task.given, task.parameters
        self.plan = Plan()

    def take(self, name: str, value: Any) -> Any:
        """Choose the value of a parameter; return the value that will be used."""
        group, _, key = name.partition(".")
        fields = getattr(self.accepted, group)
        used = self.given.get(name, value)
        assert isinstance(fields, Group)
        self.plan.parameters.setdefault(group, {})[key] = list(used) if isinstance(used, tuple) else used
        return used

    def explain(self, choice: str, value: str, why: str, *names: str) -> None:
        """Add a row to the table; it lists the given parameters among ``names``."""
        given = [name for name in names if name in self.given]
        self.plan.table.append((choice, value, f"as given: {', '.join(given)}" if given else why))


def make_plan(task: Task, note: str = "", sizes: Sequence[int] = ()) -> Plan:
    """Plan a training.

    Args:
        task: images, device, time, and given parameters.
        note: more on the images, for the table.
        sizes: other sizes of the images in pixels; the table says what they would cost.

    Raises:
        UserError: if the images are too large for the device, or the time is too short.
    """
    choices = _Choices(task)
    sizing = choose_size(task)
    _explain_images(choices, task, note)
    _choose_network(choices, task, sizing)
    images = _choose_length(choices, task, sizing)
    _choose_optimizer(choices, task, sizing, images)
    _choose_augmentation(choices, task, images)
    fitted = _choose_evaluation(choices, task, sizing)
    _explain_duration(choices, task, sizing, images, fitted)
    _explain_more(choices, task, sizing, sizes)
    return choices.plan


def _explain_images(choices: _Choices, task: Task, note: str) -> None:
    channels, height, width = task.image_shape
    kind = {1: "grey", 3: "colour", 4: "colour with transparency"}[channels]
    classes = f", {task.classes} classes" if task.classes > 1 else ""
    choices.explain("images", f"{task.count:,} of {height}×{width}", f"{kind}{classes}{note}")
    choices.explain("device", f"{gigabytes(task.profile.memory)} of memory", task.profile.kind)


def _choose_network(choices: _Choices, task: Task, sizing: Sizing) -> None:
    model = sizing.model.model_dump(exclude={"dropout"})
    for name, value in model.items():
        choices.take(f"model.{name}", value)
    patch = f", patches of {model['patch_size']}" if model["patch_size"] > 1 else ""
    levels = len(model["channel_multipliers"])
    sides = f"{levels} level{'s' if levels > 1 else ''}{patch}"
    why = "the largest that sees enough images in this time"
    if not sizing.is_worth_it:
        why = "the fastest: this time is short for such images"
    elif patch:
        why += "; without patches none does"
    choices.explain("network", f"width {model['width']}, {sides}", why, *(f"model.{name}" for name in model))
    flops = sizing.cost.flops / 1e9
    choices.explain("", f"{sizing.cost.parameters / 1e6:.2f} M parameters", f"{flops:.2g} GFLOP per image of a step")
    parts = choices.take("training.accumulation_steps", sizing.accumulation_steps)
    choices.take("training.activation_checkpointing", sizing.activation_checkpointing)
    batch = choices.take("training.batch_size", sizing.batch_size)
    in_parts = f" in {parts} parts" if parts > 1 else ""
    recomputed = ", activations recomputed" if sizing.activation_checkpointing else ""
    memory = f"takes {gigabytes(sizing.memory)} of {gigabytes(task.profile.memory)}{recomputed}"
    names = ("training.batch_size", "training.accumulation_steps", "training.activation_checkpointing")
    choices.explain("batch", f"{batch}{in_parts}", memory)
    if given := [name for name in names if name in task.given]:
        choices.explain("", "", f"as given: {', '.join(given)}")


def _choose_length(choices: _Choices, task: Task, sizing: Sizing) -> int:
    """Choose the number of images and of reports; return the number of images."""
    images = two_digits(max(0.0, sizing.images))
    if "training.num_images" not in task.given and images < max(LEAST, sizing.batch_size):
        missing = (max(LEAST, sizing.batch_size) - sizing.images) / sizing.images_per_second
        needed = two_digits(1.2 * (task.seconds + missing * 1.2) / 60 + 1)
        raise UserError(
            f"plan.time_budget = {duration(task.seconds)} is too short for a training with a single report: on this "
            f"device it would see {images:,} images of {task.image_shape[1]}×{task.image_shape[2]} pixels. Give at "
            f"least plan.time_budget={needed}min, or set training.num_images."
        )
    images = int(choices.take("training.num_images", images))
    interval = max(sizing.batch_size, two_digits(images / sizing.reports))
    choices.take("training.checkpoint_interval", interval)
    interval = choices.take("training.report_interval", interval)
    passes = images / task.count
    how = f"{passes:,.0f}" if passes >= 10 else f"{passes:.1f}"
    note = f"{how} passes over the images; reports every {interval:,}"
    if "training.num_images" in task.given:
        note += "; training.num_images is given: plan.time_budget does not count"
    choices.explain("length", f"{images:,} images", note)
    return images


def _choose_optimizer(choices: _Choices, task: Task, sizing: Sizing, images: int) -> None:
    batch = choices.plan.parameters["training"]["batch_size"]
    lr = choices.take("optimizer.lr", two_figures(recommended_learning_rate(sizing.model.width, batch)))
    warmup = choices.take("optimizer.warmup_images", two_digits(recommended_warmup(images)))
    half_life = choices.take("training.ema_half_life", max(batch, two_digits(min(EMA_SHARE * images, MOST_HALF_LIFE))))
    why = f"for this width; warm-up {warmup:,}, half-life of the EMA {half_life:,.0f} images"
    choices.explain(
        "learning rate", f"{lr:.2g}", why, "optimizer.lr", "optimizer.warmup_images", "training.ema_half_life"
    )


def _choose_augmentation(choices: _Choices, task: Task, images: int) -> None:
    small = images > SMALL_PASSES * task.count
    flips = choices.take("augmentation.horizontal_flip", task.image_shape[0] > 1)
    choices.take("augmentation.vertical_flip", False)
    choices.take("augmentation.crop_padding", 0)
    turn_off = "they mirror text and hearts, too; off: use.augmentation=none" if flips else "grey images"
    choices.explain("flips", "half of the images" if flips else "none", turn_off, "augmentation.horizontal_flip")
    probability = choices.take("augmentation.non_leaking", NON_LEAKING if small else 0.0)
    dropout = choices.take("model.dropout", DROPOUT if small else 0.0)
    value = f"{probability:.0%}, dropout {dropout:.2g}" if probability or dropout else "none"
    why = f"{'more' if small else 'fewer'} than {SMALL_PASSES} passes"
    choices.explain("augmentation", value, why, "augmentation.non_leaking", "model.dropout")


def _choose_evaluation(choices: _Choices, task: Task, sizing: Sizing) -> int:
    if task.parameters.evaluation.extractor == "inception":
        return 0
    limit = extractor_images(task, EXTRACTOR_SHARE * training_seconds(task))
    wanted = max(LEAST_FIT_IMAGES, MOST_FIT_PASSES * task.count)
    least = task.parameters.evaluation.fit_batch_size
    fitted = int(choices.take("evaluation.fit_images", max(least, two_digits(min(limit, wanted)))))
    why = f"at most {EXTRACTOR_SHARE:.0%} of the training's time"
    choices.explain("evaluation", f"fit on {fitted:,} images", why, "evaluation.fit_images")
    return fitted


def _explain_duration(choices: _Choices, task: Task, sizing: Sizing, images: int, fitted: int) -> None:
    training = training_seconds(task) + (images - sizing.images) / sizing.images_per_second
    fitting = fitted / max(1, extractor_images(task, 1.0)) if fitted else 0.0
    total = (training + fitting + START_UP) / (1 - RESERVE)
    speed = two_digits(sizing.images_per_second)
    choices.explain("duration", duration(total), f"training at {speed:,} images/s, sampling, evaluation, report")
    choices.explain("result", "what to expect", expect(images, task.image_shape, task.count))


def _explain_more(choices: _Choices, task: Task, sizing: Sizing, sizes: Sequence[int]) -> None:
    """Add rows on what more time gives, and on what other sizes of the images cost."""
    longer = choose_size(replace(task, seconds=task.seconds * MORE_TIME), fit=False)
    value = duration(task.seconds * MORE_TIME).replace(" ", "")
    seen = two_digits(max(0.0, longer.images))
    network = "the same network" if longer.model == sizing.model else f"width {longer.model.width}"
    choices.explain("for more", f"plan.time_budget={value}", f"{network}, {seen:,} images")
    for size in sizes:
        other = choose_size(replace(task, image_shape=(task.image_shape[0], size, size)), fit=False)
        patch = f", patches of {other.model.patch_size}" if other.model.patch_size > 1 else ""
        speed, images = two_digits(other.images_per_second), two_digits(max(0.0, other.images))
        why = f"{images:,} images at {speed:,}/s with width {other.model.width}{patch}"
        choices.explain("", f"images.size={size}", why)


def other_sizes(looks: Sequence[Sequence[int]], image_shape: tuple[int, int, int]) -> list[int]:
    """Return larger sizes that at least half of the images have.

    Args:
        looks: height, width, channels and number of images with them.
        image_shape: (C, H, W) as chosen.
    """
    sides = sorted(min(height, width) for height, width, _, count in looks for _ in range(count))
    usual = sides[len(sides) // 2] if sides else 0
    return [side for side in OTHER_SIDES if max(image_shape[1:]) < side <= usual][:2]
