"""docs/benchmarks.md: every number of it was measured, and says where, when and how."""

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.training.results import Row

from ddpm_kedro.sampling.generation import DEFAULT_GUIDANCE

PARTS = ("step", "operations", "step_cuda", "operations_cuda", "quality", "growth")
SHOWN = 12  # operations, those that take the most time
Found = dict[str, Any]
INTRODUCTION = """# Benchmarks

What a training costs here, beside [diffusers](https://github.com/huggingface/diffusers) and
[denoising-diffusion-pytorch](https://github.com/lucidrains/denoising-diffusion-pytorch) (lucidrains). `make bench`
measures and writes this page, `make bench ARGS="quality --only ours,diffusers-32-v --seconds 200"` a part of it; how
fast samples are drawn is on [another page](diffusion.md).
"""
PICTURE = "\n![{}](benchmarks.png)\n"
PANELS = {"step": "images a second of a step", "quality": "KID after the same time"}
STEP = """
## A step of training{where}

The U-Net of google/ddpm-cifar10-32 at width {width}, {size}×{size}×3 random pictures in memory. Ours is
`Trainer.step` with everything in it: noise, clip, optimizer, average. diffusers is a step of its
`train_unconditional.py` (attention heads of 8 channels; the published model has one head; the script's average of the
weights is off by default), in a loop without accelerate. lucidrains is a step of its `Trainer`, which updates its
average every tenth step; **its U-Net is another one**, as near as its options come, with other numbers of parameters
and operations: its share can be compared, its images a second cannot. bf16 is `torch.autocast`.

Median of {rounds} rounds in which all take turns. The share is that of the fastest matrix product measured in
the same rounds, in the same precision; operations are counted by torch's `FlopCounterMode`, forward and backward.
(Convolutions come from another library than products, and may be faster than those: shares above 100 %.)
"""
OPERATIONS = """
## Where the time of a step goes{where}

Our step in {precision} at batch {batch}, by torch's profiler; {seconds:.3f} s when nobody looks. What is above
"others" is listed by the time that is spent in the operation itself.
"""
QUALITY = """
## Quality after the same time

Each trains on the same digits for the same number of seconds, reading them included, from nothing; then it draws
digits, and that time does not count. Ours is the default configuration, drawn by 10 steps of DPM-Solver++, by
default with guidance {usual}; its variants are larger networks. The others have our warm-up and cosine decay, ending
with the time as ours does; averaged weights; the faster of fp32 and bf16; their own best solver (diffusers:
DPM-Solver++, 20 steps; lucidrains: DDIM, 50 steps). diffusers' script learns noise, without classes; with `-v` its
network is given our target and schedule, v and cosine, which the script does not have.

Where classes are learnt, digits are drawn without guidance and with it (lucidrains', which takes minutes, without): it
gives clearer digits and less variety, which accuracy likes and KID does not. KID and FD are against the hold-out, in
features of the project's classifier, KID ± the deviation over subsets; real images come out around nought, some below
it, for KID is unbiased. Accuracy is the share that the classifier takes for the class asked for. Sorted by KID.
Each candidate is kept as soon as it is measured: a command below may name some that it was stopped before.
"""
GROWTH = """
## How the cost grows

Our step on a small U-Net, reading its images included, in {precision}: medians of rounds in which all points of a
table take turns. The stores are memory-mapped files, and what a step reads of them is in memory already: no disk is
measured.
"""
COLUMNS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "batch": ("batch", lambda row: f"{row['value']}"),
    "width": ("width", lambda row: f"{row['value']} ({row['parameters'] / 1e6:.2f} M)"),
    "resolution": ("pixels of a side", lambda row: f"{row['value']}"),
    "images": ("images in the store", lambda row: f"{row['value']:,}"),
}


def make(found: dict[str, Found]) -> str:
    """The page, of what was measured; a part that was not is left out."""
    parts = [INTRODUCTION]
    if shown := [text for name, text in PANELS.items() if found[name]]:
        parts.append(PICTURE.format(", and ".join(shown).capitalize()))
    writers = {"step": step, "operations": operations, "quality": quality, "growth": growth}
    for name in PARTS:
        if found.get(name):
            parts += [writers[name.removesuffix("_cuda")](found[name]), measured(found[name])]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def where(found: Found) -> str:
    """For a heading."""
    return " on a GPU" if found["machine"].get("gpu") else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown; all but the first column are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def measured(found: Found) -> str:
    """Where, when and how."""
    machine, versions = found["machine"], found["versions"]
    native = "native" if machine["native_bf16"] else "no native"
    commands = ", ".join(f"`{command}`" for command in found.get("commands", [found["command"]]))
    gpu = f"{machine['gpu']}; " if machine.get("gpu") else ""
    return (
        f"Measured {found['date']} on {gpu}{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{native} bfloat16; {', '.join(f'{name} {version}' for name, version in versions.items())}; {commands}.\n"
    )


def step(found: Found) -> str:
    """Seconds, images and share of every candidate."""
    header = ("candidate", "parameters", "precision", "batch", "seconds (least – most)", "images/s",
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
    """The operations of a step, and how near to the fastest matrix product the two kinds that count come."""
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
    """One table for each time of training."""
    text = QUALITY.format(usual=DEFAULT_GUIDANCE)
    for seconds in sorted({row["seconds"] for row in found["rows"]}):
        rows = sorted((row for row in found["rows"] if row["seconds"] == seconds), key=lambda row: row["kid"])
        text += f"\nAfter {seconds:g} s:\n\n" + quality_table(rows, found["floor"])
    return text


def quality_table(rows: list[Row], floor: Row) -> str:
    """Every candidate, and the floor: training images in the place of drawn ones."""
    header = ("candidate", "parameters", "precision", "batch", "learning rate", "seed", "images seen", "guidance",
              "drawn", "KID ± deviation", "FD", "accuracy", "confidence")  # fmt: skip
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
            *judged(row),
        )
        for row in rows
    ]
    return table(header, [*lines, ("real training images", *[""] * 8, *judged(floor))])


def judged(row: Row) -> tuple[str, str, str, str]:
    """KID, FD, accuracy where there are classes, confidence."""
    accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.1%}"
    kid = f"{row['kid']:.3f} ± {row['kid_spread']:.3f}"
    return kid, f"{row['fd']:.1f}", accuracy, f"{row['confidence']:.1%}"


def growth(found: Found) -> str:
    """One table for each thing that grows."""
    by = {what: [row for row in found["rows"] if row["what"] == what] for what in (*COLUMNS, "loop", "processes")}
    precision = next((row["precision"] for row in found["rows"] if "precision" in row), "")
    text = GROWTH.format(precision=precision) if precision else "\n## How the cost grows\n"
    for what, (title, value) in COLUMNS.items():
        rows = [(value(row), f"{row['seconds'] * 1e3:.1f}", f"{row['per_image'] * 1e3:.2f}") for row in by[what]]
        text += "\n" + table((title, "ms a step", "ms an image"), rows) if rows else ""
    loop = [
        (f"{row['parameters'] / 1e6:.1f} M", f"{row['batch']}",
         *(f"{row[name] * 1e3:.1f}" for name in ("seconds", "bare", "overhead")),
         f"{row['overhead_share']:.1%}")
        for row in by["loop"]
    ]  # fmt: skip
    header = (
        "parameters",
        "batch",
        "ms a turn of the loop",
        "ms forward, backward, optimizer",
        "ms between them",
        "share",
    )
    text += "\nWhat the loop adds to the bare step:\n\n" + table(header, loop) if loop else ""
    return text + processes(by["processes"])


def processes(rows: list[Row]) -> str:
    """Images a second of the training, beside those of the first row with the same settings."""
    if not rows:
        return ""
    base = {row["settings"]: row["images_per_second"] for row in reversed(rows)}
    lines = [
        (f"`{row['settings']}`" if row["settings"] else "as by default", f"{row['value']}", f"{row['threads']}",
         f"{row['images_per_second']:.0f}", f"{row['images_per_second'] / base[row['settings']]:.2f}×")
        for row in rows
    ]  # fmt: skip
    header = ("training", "processes", "threads of each", "images/s", "speed")
    return "\nThe training by torchrun, the cores shared out:\n\n" + table(header, lines)
