"""Measure training and write docs/benchmarks.md: ``python -m benchmarks.training [part …]``.

The results of each part are kept in data/benchmarks/; the page is made from all results there.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.page import find_section
from benchmarks.training import (
    checkpoints,
    growth,
    memory,
    operations,
    page,
    plot,
    processes,
    project,
    quality,
    recipes,
    step,
)
from benchmarks.training.networks import Shape
from benchmarks.training.results import ROOT, load, merged, save

PARTS = ("step", "share", "operations", "quality", "growth", "plot", "report")
APART = {
    "checkpoints": "evaluate the checkpoints that the latest run kept",
    "memory": "print the peak memory of training on a CPU, and its estimate",
    "recipes": "compare sets of parameters on the images of --source",
}
"""Parts that are measured only if they are named."""


def parse(words: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.training", description=__doc__.splitlines()[0])
    names = lambda text: text.split(",")  # noqa: E731
    numbers = lambda text: [int(word) for word in text.split(",")]  # noqa: E731
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="part",
        help=f"{', '.join(PARTS)}; default: all. " + "; ".join(f"{name}: {text}" for name, text in APART.items()),
    )
    parser.add_argument(
        "--only", type=names, default=[], help="candidates of step or quality, or recipes, separated by commas"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of step and growth, after a warm-up round")
    parser.add_argument("--batches", type=numbers, default=[8, 32], help="batch sizes of step")
    parser.add_argument("--precisions", type=names, default=["fp32", "bf16"], help="precisions of step")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="device of step and operations")
    parser.add_argument("--width", type=int, default=128, help="width of the network of step, a multiple of 32")
    parser.add_argument("--seconds", type=float, default=200, help="seconds of training, for quality and recipes")
    parser.add_argument("--images", type=int, default=2000, help="number of samples, for quality and recipes")
    parser.add_argument("--lr", type=float, help="learning rate of the peers, for quality")
    parser.add_argument("--seed", type=int, default=0, help="seed, for quality")
    parser.add_argument("--source", type=Path, help="archive or folder with class folders, for recipes")
    parser.add_argument("--seeds", type=numbers, default=[0, 1], help="seeds of the trainings, for recipes")
    parser.add_argument("--fit-images", type=int, default=100_000, help="images seen by the classifier of recipes")
    parser.add_argument("--tiny", action="store_true", help="try recipes or memory in seconds")
    parser.add_argument(
        "--processes", type=numbers, help="measure growth only with these numbers of processes, such as 1,2"
    )
    parser.add_argument("--num-images", type=int, default=24_000, help="length of a training with --processes")
    parser.add_argument(
        "--params", default="", help="parameters of a training with --processes, or of the ingestion for recipes"
    )
    arguments = parser.parse_args(words)
    if unknown := set(arguments.parts) - {*PARTS, *APART}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; the parts are {', '.join((*PARTS, *APART))}")
    known = step.CANDIDATES | step.COMPILED | quality.CANDIDATES | recipes.RECIPES
    if unknown := set(arguments.only) - set(known):
        parser.error(f"no candidate: {', '.join(sorted(unknown))}; the candidates are {', '.join(known)}")
    arguments.parts = set(arguments.parts or PARTS)
    if "recipes" in arguments.parts and (arguments.source is None or not arguments.source.exists()):
        parser.error("recipes needs images: --source=images.tar, an archive or a folder with a folder for each class")
    vars(arguments).update(recipes.TINY if arguments.tiny else {})
    return arguments


def main(words: list[str]) -> None:
    """Measure the selected parts."""
    arguments = parse(words)
    command = " ".join(["make bench", *([f'ARGS="{" ".join(words)}"'] if words else [])])
    if arguments.parts & {"step", "share"}:  # a share is computed from the steps
        measure_step(arguments, command)
    if "operations" in arguments.parts:
        groups, shape, device = project.parameters(ROOT), Shape(width=arguments.width), arguments.device
        options = arguments.batches[-1], arguments.precisions[-1], arguments.rounds, device
        save(on("operations", device), command, operations.measure(groups, shape, *options), device)
    if "quality" in arguments.parts:
        measure_quality(arguments, command)
    if "growth" in arguments.parts:
        measure_growth(arguments, command)
    if "memory" in arguments.parts:
        print(memory.HEADER, end="")
        for case in memory.cases(project.parameters(ROOT), tiny=arguments.tiny):
            print(memory.line(memory.measure(case)), flush=True)
    if "recipes" in arguments.parts:
        measure_recipes(arguments, command)
    if "checkpoints" in arguments.parts:
        images, data = project.Digits.of(ROOT), ROOT / "data"
        rows = checkpoints.measure(data, images, project.sampling(ROOT), arguments.images)
        print(checkpoints.report(rows, images, arguments.images))
    if arguments.parts & {"plot", "report"}:
        found = {part: load(part) for part in page.PARTS}
        plot.plot(found, ROOT / "docs" / "benchmarks.png")
        file = ROOT / "docs" / "benchmarks.md"
        file.write_text(page.make(found) + "\n" + find_section(file.read_text()))


def on(part: str, device: str) -> str:
    """Return the name of a part's results on a device."""
    return part if device == "cpu" else f"{part}_{device}"


def measure_step(arguments: argparse.Namespace, command: str) -> None:
    """Measure steps of the selected candidates; keep earlier results of the others."""
    shape, lists = Shape(width=arguments.width), (arguments.only, arguments.batches, arguments.precisions)
    part, device = on("step", arguments.device), arguments.device
    before = load(part) if arguments.only else {}
    found = step.measure(project.parameters(ROOT), shape, *lists, arguments.rounds, device)
    found["rows"] = merged(before.get("rows", []), found["rows"], ("name", "precision", "batch"))
    found["gemm"] = before.get("gemm", {}) | found["gemm"]
    save(part, command, found | {"commands": commands(before, command)}, device)


def measure_quality(arguments: argparse.Namespace, command: str) -> None:
    """Measure the candidates one after another; save each at once."""
    digits = project.Digits.of(ROOT)
    before = load("quality")
    found = {"rows": before.get("rows", []), "floor": quality.scores_of_real_images(digits, arguments.images)}
    found["commands"] = commands(before, command)
    for name in arguments.only or quality.CANDIDATES:
        rows = quality.measure(name, digits, arguments.seconds, arguments.images, arguments.seed, arguments.lr)
        found["rows"] = merged(found["rows"], rows, quality.IDENTITY)
        save("quality", command, found)
        for row in rows:
            print(
                f"{name}, guidance {row['guidance']}: {row['images_seen']:,} images, KID {row['kid']:.4f}", flush=True
            )


def measure_growth(arguments: argparse.Namespace, command: str) -> None:
    """Measure how the cost grows: with processes if they are given, else with everything else."""
    before = load("growth")
    if arguments.processes:
        rows = processes.measure(arguments.processes, arguments.num_images, arguments.params, arguments.rounds)
    else:
        groups = project.parameters(ROOT)
        rows = growth.measure(groups, arguments.rounds)
        rows += [growth.loop_overhead(groups, growth.SMALL, batch, 20 * arguments.rounds) for batch in (8, 32)]
        rows.append(growth.loop_overhead(groups, Shape(width=arguments.width), 32, 4 * arguments.rounds))
    found = {
        "rows": merged(before.get("rows", []), rows, ("what", "value", "settings", "parameters")),
        "commands": commands(before, command),
    }
    save("growth", command, found)


def measure_recipes(arguments: argparse.Namespace, command: str) -> None:
    """Measure the recipes in turns; save each training at once."""
    names = arguments.only or (recipes.TINY_RECIPES if arguments.tiny else recipes.RECIPES)
    part = "recipes_tiny" if arguments.tiny else "recipes"  # not for the page
    root = recipes.prepare(arguments.source, arguments.params)
    images = recipes.images_of(root, arguments.fit_images)
    before = load(part)
    found = {"rows": before.get("rows", []), "commands": commands(before, command)}
    found["real"] = before.get("real", {}) | {root.name: quality.scores_of_real_images(images, arguments.images)}
    options = arguments.seconds, arguments.seeds, arguments.images, arguments.device
    for rows in recipes.measure(root, names, images, *options):
        found["rows"] = merged(found["rows"], rows, recipes.IDENTITY)
        save(part, command, found, arguments.device)
        for row in rows:
            print(f"{row['name']}, seed {row['seed']}, guidance {row['guidance']}: KID {row['kid']:.4f}", flush=True)
    print(page.compared(found), flush=True)


def commands(before: dict[str, Any], command: str) -> list[str]:
    """Return the commands that all rows were measured with, each once."""
    return list(dict.fromkeys([*before.get("commands", []), command]))


if __name__ == "__main__":
    main(sys.argv[1:])
