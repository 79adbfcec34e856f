"""The command ``kedro plan``."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.startup import ProjectMetadata
from rich.table import Table

from ddpm_kedro.cli.common import ListOption, console, data_folder, make_session, project_command, split_params
from ddpm_kedro.data_lock import hold_data_folder
from ddpm_kedro.errors import UserError
from ddpm_kedro.parameters import Parameters, check_parameters
from ddpm_kedro.planning.rounding import duration, two_digits
from ddpm_kedro.progress import gigabytes

if TYPE_CHECKING:
    from ddpm_kedro.planning.profile import DeviceProfile
    from ddpm_kedro.planning.sizing import Task

SIZES = "32,48,64,96,128,256"
UNITS = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15}


@click.command()
@click.option("--size", default=SIZES, show_default=True, help="Sizes of the images in pixels.")
@click.option("--time-budget", help="Time, such as 10min, 2h or 3d; by default plan.time_budget.")
@click.option("--images", type=click.IntRange(min=1), help="Number of training images; by default the ingested ones.")
@click.option("--classes", type=click.IntRange(min=0), help="Number of classes; default: of the ingested images.")
@click.option("--channels", type=click.Choice(["1", "3", "4"]), help="1 grey, 3 colour, 4 with transparency.")
@click.option("--memory", help="Memory of the device, such as 24GB; default: of this device.")
@click.option("--flops-rate", help="Speed of another device in training, such as 40TFLOPS; needs --memory.")
@click.option(
    "--profile",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A device_profile.json that another device measured.",
)
@click.option("--params", cls=ListOption, multiple=True, callback=split_params, default="", help="As for kedro run.")
@project_command
def plan(project: ProjectMetadata, size: str, params: dict[str, Any], env: str | None, **options: Any) -> None:
    """Show what trainings on images of other sizes would be: network, memory, speed and length. Nothing is trained.

    The speed is measured on this device, once, or comes from --profile or --flops-rate. It never is a guess.
    """
    if options["time_budget"]:
        params.setdefault("plan", {})["time_budget"] = options["time_budget"]
    context = make_session(project, env, params).load_context()
    loader: Any = context.config_loader
    parameters, given = check_parameters(loader["parameters"]), loader.given()
    catalog: Any = context.catalog
    count, classes, channels = _images(catalog, parameters, options)
    with hold_data_folder(data_folder(project, env)):
        profile = _profile(catalog, options)
    from ddpm_kedro.planning.sizing import Task  # noqa: PLC0415  torch takes seconds

    about = (count, classes, profile, parameters.plan.seconds, parameters, given)
    click.echo(f"{profile.kind}, {gigabytes(profile.memory)} of memory; {duration(parameters.plan.seconds)}:")
    console().print(_table([Task((channels, side, side), *about) for side in _sides(size)]))


def _table(tasks: list["Task"]) -> Table:
    from ddpm_kedro.planning.sizing import choose_size  # noqa: PLC0415

    names = ("size", "network", "parameters", "GFLOP", "memory", "images/s", "images", "passes")
    table = Table(*names, box=None, pad_edge=False, collapse_padding=True)
    for task in tasks:
        side = str(task.image_shape[1])
        try:
            sizing = choose_size(task)
        except UserError:
            table.add_row(side, "too large for this device")
            continue
        patch = f", patch {sizing.model.patch_size}" if sizing.model.patch_size > 1 else ""
        seen = two_digits(max(0.0, sizing.images))
        table.add_row(
            side,
            f"width {sizing.model.width}{patch}",
            f"{sizing.cost.parameters / 1e6:.2f} M",
            f"{sizing.cost.flops / 1e9:.2g}",
            gigabytes(sizing.memory),
            f"{two_digits(sizing.images_per_second):,}",
            f"{seen:,}" if sizing.is_worth_it else f"{seen:,} (few)",
            f"{seen / task.count:,.1f}",
        )
    return table


def _sides(size: str) -> list[int]:
    sides = [side.strip() for side in size.split(",")]
    if not all(re.fullmatch(r"\d{1,4}", side) and int(side) >= 8 for side in sides):
        raise UserError(f"--size {size!r}: numbers of pixels from 8 on are expected, such as {SIZES}.")
    return [int(side) for side in sides]


def _images(catalog: Any, parameters: Parameters, options: dict[str, Any]) -> tuple[int, int, int]:
    """Return number of images, classes and channels: from the options, otherwise of the ingested images."""
    dataset = catalog.get("training_images")
    store = dataset.load() if options["images"] is None and dataset.exists() else None
    if store is None and options["images"] is None:
        raise UserError("No images were ingested: say how many there are, such as --images 5000.")
    found = (0, 0, parameters.images.channels or 3)
    if store is not None:
        found = (len(store), len(store.class_names), store.image_shape[0])
    given = (options["images"], options["classes"], options["channels"] and int(options["channels"]))
    count, classes, channels = (known if each is None else each for each, known in zip(given, found, strict=True))
    return count, classes, channels


def _profile(catalog: Any, options: dict[str, Any]) -> "DeviceProfile":
    from ddpm_kedro.planning.profile import DeviceProfile  # noqa: PLC0415

    memory = None if options["memory"] is None else int(_number("--memory", options["memory"], "24GB", "b"))
    if options["flops_rate"] is not None:
        if memory is None:
            raise UserError("--flops-rate needs --memory, such as --memory 24GB.")
        rate = _number("--flops-rate", options["flops_rate"], "40TFLOPS", r"flops?(/s)?")
        return DeviceProfile.of_rate(f"a device of {options['flops_rate']}", "cuda", memory, rate)
    found = catalog.load("device_profile")() if options["profile"] is None else _read(options["profile"])
    return found if memory is None else found.with_memory(memory)


def _read(path: Path) -> "DeviceProfile":
    """Read the profile that was measured last."""
    from ddpm_kedro.planning.profile import DeviceProfile  # noqa: PLC0415

    try:
        *_, last = json.loads(path.read_text()).values()
        return DeviceProfile.from_dict(last)
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(
            f"--profile {path} is no device_profile.json. Copy data/05_model_input/device_profile.json from the other "
            "device; a run on images of your own, or kedro plan, writes it there."
        ) from error


def _number(option: str, text: str, example: str, unit: str) -> float:
    found = re.fullmatch(rf"(\d+(?:\.\d+)?)\s*([kmgtp])i?{unit}", text.strip().lower())
    if not found or not float(found[1]):
        raise UserError(f"{option} {text!r}: a number with a unit is expected, such as {example}.")
    return float(found[1]) * UNITS[found[2]]
