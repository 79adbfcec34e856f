"""Write docs/benchmarks.md, with machine, date and command of each measurement."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.training.recipes import summarised
from benchmarks.training.results import Row

from ddpm_kedro.sampling.generation import DEFAULT_GUIDANCE

PARTS = ("step", "operations", "step_cuda", "operations_cuda", "quality", "recipes", "growth")
SHOWN = 12  # operations with the most time
Found = dict[str, Any]
INTRODUCTION = """# Benchmarks

The cost of training with this project, [diffusers](https://github.com/huggingface/diffusers) and
[denoising-diffusion-pytorch](https://github.com/lucidrains/denoising-diffusion-pytorch) (lucidrains). `make bench`
measures everything and writes this page; `make bench ARGS="quality --only ours,diffusers-32-v --seconds 200"` measures
a part of it. The speed of sampling is on [another page](diffusion.md).
"""
FIGURE = "\n![{}](benchmarks.png)\n"
PANELS = {"step": "images per second of a training step", "quality": "KID after equal training time"}
STEP = """
## A step of training{where}

All train the U-Net of google/ddpm-cifar10-32 at width {width} on {size}×{size}×3 random images in memory. Ours is
`Trainer.step` as a whole: noise, gradient clipping, optimizer, EMA. diffusers is a step of its
`train_unconditional.py` (attention heads of 8 channels; the published model has one head; the script's EMA is off by
default), in a loop without accelerate. lucidrains is a step of its `Trainer`, which updates the EMA weights every tenth
step. **Its U-Net is a different one**, as close as its options allow, with other numbers of parameters and operations:
compare its share, not its images per second. bf16 is `torch.autocast`.

Numbers are medians of {rounds} interleaved rounds. The share is relative to the fastest matrix product in the same
rounds and precision. Operations are counted by torch's `FlopCounterMode`, forward and backward.
(Convolutions use another library than matrix products and may be faster: shares above 100 %.)
"""
OPERATIONS = """
## Where the time of a step goes{where}

Our step in {precision} at batch {batch}, by torch's profiler; it takes {seconds:.3f} s without the profiler. Operations
are sorted by the time spent in the operation itself.
"""
QUALITY = """
## Quality after equal training time

Each candidate trains from scratch on the same digits for the same number of seconds, including the reading of images;
then it samples digits, which is not counted. Ours is the default configuration, sampled with 10 steps of DPM-Solver++
and by default with guidance {usual}; its variants are larger networks. The others have our warm-up and cosine decay,
which end with the training time as ours do; EMA weights; the faster of fp32 and bf16; and their own best solver
(diffusers: DPM-Solver++, 20 steps; lucidrains: DDIM, 50 steps). diffusers' script predicts noise, without classes; with
`-v` its network has our target and schedule, v and cosine, which the script does not offer.

Class-conditional candidates are sampled with and without guidance (lucidrains only without, since it takes minutes).
Guidance gives clearer digits and less variety: accuracy improves, KID gets worse. KID and FD compare with the holdout
images, by features of the project's classifier; ± is the deviation of KID over subsets. For real images KID is around
zero, sometimes below, since KID is unbiased. Accuracy is the share of samples that the classifier assigns to the
requested class. Rows are sorted by KID. Each candidate is saved as soon as it is measured: if a command below was
stopped, it may name candidates that it did not measure.
"""
RECIPES = """
## Recipes

Sets of parameters of this project that were trained on the same images for the same number of seconds, in turns, once
per seed. Samples (DPM-Solver++, 10 steps) are compared with the holdout images, by features of one classifier that was
fitted before to the training images. Classes are sampled as often as they occur. Rows are sorted by the mean KID.
"""
GROWTH = """
## How the cost grows

Our step on a small U-Net, including the reading of images, in {precision}: medians of interleaved rounds of all rows
of a table. The stores are memory-mapped files; the images of a step are in memory already, so that no disk is measured.
"""
COLUMNS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "batch": ("batch", lambda row: f"{row['value']}"),
    "width": ("width", lambda row: f"{row['value']} ({row['parameters'] / 1e6:.2f} M)"),
    "resolution": ("pixels per side", lambda row: f"{row['value']}"),
    "images": ("images in the store", lambda row: f"{row['value']:,}"),
}


def make(found: dict[str, Found]) -> str:
    """Return the page; parts that were not measured are left out."""
    parts = [INTRODUCTION]
    if shown := ", and ".join(text for name, text in PANELS.items() if found[name]):
        parts.append(FIGURE.format(shown[0].upper() + shown[1:]))
    writers = {"step": step, "operations": operations, "quality": quality, "recipes": compared, "growth": growth}
    for name in PARTS:
        if found.get(name):
            parts += [writers[name.removesuffix("_cuda")](found[name]), measured(found[name])]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def where(found: Found) -> str:
    """Return the end of a heading: the device."""
    return " on a GPU" if found["machine"].get("gpu") else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, whose columns are numbers, except the first."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def measured(found: Found) -> str:
    """Return machine, date, versions and commands of a measurement."""
    machine, versions = found["machine"], found["versions"]
    native = "native" if machine["native_bf16"] else "no native"
    commands = ", ".join(f"`{command}`" for command in found.get("commands", [found["command"]]))
    gpu = f"{machine['gpu']}; " if machine.get("gpu") else ""
    return (
        f"Measured {found['date']} on {gpu}{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{native} bfloat16; {', '.join(f'{name} {version}' for name, version in versions.items())}; {commands}.\n"
    )


def step(found: Found) -> str:
    """Return seconds, images and share of each candidate."""
    header = ("candidate", "parameters", "precision", "batch", "seconds (min – max)", "images/s",
              "GFLOP/image", "GFLOP/s", "share of GEMM")  # fmt: skip
    rows = [
        (
            row["name"],
            f"{row['parameters']:,}",
            row["precision"],
            f"{row['batch']}",
            f"{row['seconds']:.3f} ({row['fastest']:.3f} – {row['slowest']:.3f})",
            f"{row['images_per_second']:.2f}",
            f"{row['flops_per_image'] / 1e9:.2f}",
            f"{row['flops_per_second'] / 1e9:,.0f}",
            f"{row['share']:.0%}",
        )
        for row in sorted(found["rows"], key=lambda row: (row["precision"], row["batch"]), reverse=True)
    ]
    shapes = list(next(iter(found["gemm"].values())))
    products = [
        (precision, *(f"{rates[shape] / 1e9:,.0f}" for shape in shapes)) for precision, rates in found["gemm"].items()
    ]
    gemm = "\nGFLOP/s of matrix products, by their shapes:\n\n" + table(("precision", *shapes), products)
    return STEP.format(where=where(found), **found) + "\n" + table(header, rows) + gemm


def operations(found: Found) -> str:
    """Return the operations of a step, and the speed of convolutions and matrix products relative to the fastest."""
    total = sum(row["seconds"] for row in found["rows"])
    shown, others = found["rows"][:SHOWN], found["rows"][SHOWN:]
    rest = {"operation": "others", "calls": sum(row["calls"] for row in others)}
    rows = [
        (row["operation"], f"{row['calls']:,}", f"{row['seconds'] * 1e3:.0f}", f"{row['seconds'] / total:.1%}")
        for row in [*shown, rest | {"seconds": sum(row["seconds"] for row in others)}]
    ]
    text = OPERATIONS.format(where=where(found), **found) + "\n" + table(("operation", "calls", "ms", "share"), rows)
    reached = [
        (kind, f"{each['seconds'] / total:.0%}", f"{each['flops'] / each['seconds'] / 1e9:,.0f}",
         f"{each['flops'] / each['seconds'] / found['gemm']:.0%}")
        for kind, each in found["reached"].items()
    ]  # fmt: skip
    header = ("of these", "share of the time", "GFLOP/s", "of the fastest matrix product")
    return text + f"\nThe fastest matrix product: {found['gemm'] / 1e9:,.0f} GFLOP/s.\n\n" + table(header, reached)


def quality(found: Found) -> str:
    """Return one table per training time."""
    text = QUALITY.format(usual=DEFAULT_GUIDANCE)
    for seconds in sorted({row["seconds"] for row in found["rows"]}):
        rows = sorted((row for row in found["rows"] if row["seconds"] == seconds), key=lambda row: row["kid"])
        text += f"\nAfter {seconds:g} s:\n\n" + quality_table(rows, found["floor"])
    return text


def quality_table(rows: list[Row], real: Row) -> str:
    """Return a row per candidate, and one for real images in place of samples."""
    header = ("candidate", "parameters", "precision", "batch", "learning rate", "seed", "images seen", "guidance",
              "samples", "KID ± deviation", "FD", "accuracy", "confidence")  # fmt: skip
    lines = [
        (
            row["name"],
            f"{row['parameters']:,}",
            row["precision"],
            f"{row['batch']}",
            f"{row['lr']:g}",
            f"{row['seed']}",
            f"{row['images_seen']:,}",
            f"{row['guidance']:g}" if row["classes"] else "",
            f"{row['images']:,}",
            *cells(row),
        )
        for row in rows
    ]
    return table(header, [*lines, ("real training images", *[""] * 8, *cells(real))])


def cells(row: Row) -> tuple[str, str, str, str]:
    """Return KID, FD, accuracy (empty without classes) and confidence."""
    accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.1%}"
    kid = f"{row['kid']:.3f} ± {row['kid_spread']:.3f}"
    return kid, f"{row['fd']:.1f}", accuracy, f"{row['confidence']:.1%}"


def compared(found: Found) -> str:
    """Return one table per set of images and training time, and the parameters of each recipe."""
    text = RECIPES
    places = sorted({(row["source"], row["seconds"]) for row in found["rows"]})
    for source, seconds in places:
        rows = [row for row in found["rows"] if (row["source"], row["seconds"]) == (source, seconds)]
        text += f"\n`{source}`, {seconds:g} s:\n\n" + recipe_table(rows, found["real"][source])
    recipes = {row["name"]: json.loads(row["changes"]) for row in found["rows"]}
    lines = [(name, ", ".join(f"`{key}={value}`" for key, value in each.items())) for name, each in recipes.items()]
    return (
        text
        + "\n| recipe | parameters other than the chosen ones |\n| --- | --- |\n"
        + "".join(f"| {name} | {changes} |\n" for name, changes in lines)
    )


def recipe_table(rows: list[Row], real: Row) -> str:
    """Return a row per recipe and guidance scale, and one for real images in place of samples."""
    header = ("recipe", "parameters", "precision", "batch", "images seen", "guidance", "samples", "KID by seed",
              "mean KID", "FD", "accuracy")  # fmt: skip
    lines = [
        (
            row["name"],
            f"{row['parameters']:,}",
            row["precision"],
            f"{row['batch']}",
            f"{row['images_seen']:,.0f}",
            f"{row['guidance']:g}",
            f"{row['images']:,}",
            ", ".join(f"{kid:.3f}" for kid in row["kids"]),
            f"{row['kid']:.3f}",
            f"{row['fd']:.1f}",
            "" if row["accuracy"] is None else f"{row['accuracy']:.1%}",
        )
        for row in summarised(rows)
    ]
    accuracy = "" if real["accuracy"] is None else f"{real['accuracy']:.1%}"
    return table(
        header, [*lines, ("real training images", *[""] * 7, f"{real['kid']:.3f}", f"{real['fd']:.1f}", accuracy)]
    )


def growth(found: Found) -> str:
    """Return one table per thing that grows."""
    by = {what: [row for row in found["rows"] if row["what"] == what] for what in (*COLUMNS, "loop", "processes")}
    precision = next((row["precision"] for row in found["rows"] if "precision" in row), "")
    text = GROWTH.format(precision=precision) if precision else "\n## How the cost grows\n"
    for what, (title, value) in COLUMNS.items():
        rows = [(value(row), f"{row['seconds'] * 1e3:.1f}", f"{row['per_image'] * 1e3:.2f}") for row in by[what]]
        text += "\n" + table((title, "ms per step", "ms per image"), rows) if rows else ""
    loop = [
        (f"{row['parameters'] / 1e6:.1f} M", f"{row['batch']}",
         *(f"{row[name] * 1e3:.1f}" for name in ("seconds", "bare", "overhead")),
         f"{row['overhead_share']:.1%}")
        for row in by["loop"]
    ]  # fmt: skip
    header = (
        "parameters",
        "batch",
        "ms per iteration of the loop",
        "ms forward, backward, optimizer",
        "ms between them",
        "share",
    )
    text += "\nThe overhead of the loop:\n\n" + table(header, loop) if loop else ""
    return text + processes(by["processes"])


def processes(rows: list[Row]) -> str:
    """Return images per second of training, and relative to the first row with the same settings."""
    if not rows:
        return ""
    base = {row["settings"]: row["images_per_second"] for row in reversed(rows)}
    lines = [
        (f"`{row['settings']}`" if row["settings"] else "default", f"{row['value']}", f"{row['threads']}",
         f"{row['images_per_second']:.0f}", f"{row['images_per_second'] / base[row['settings']]:.2f}×")
        for row in rows
    ]  # fmt: skip
    header = ("training", "processes", "threads per process", "images/s", "speed")
    return "\nTraining with torchrun; the processes share the cores:\n\n" + table(header, lines)
