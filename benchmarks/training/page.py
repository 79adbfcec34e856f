"""docs/benchmarks.md: every number of it was measured, and says where, when and how."""

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.training.results import Row

from ddpm_kedro.sampling.generation import DEFAULT_GUIDANCE

PARTS = ("step", "operations", "step_cuda", "operations_cuda", "quality", "growth")
SHOWN = 12  # operations, those that take the most time
Found = dict[str, Any]
INTRODUCTION = """# Benchmarks

The cost of training with this project, [diffusers](https://github.com/huggingface/diffusers) and
[denoising-diffusion-pytorch](https://github.com/lucidrains/denoising-diffusion-pytorch) (lucidrains). `make bench`
measures everything and writes this page; `make bench ARGS="quality --only ours,diffusers-32-v --seconds 200"` measures
a part of it. [diffusion.md](diffusion.md#sampling) has the speed of sampling.
"""
PICTURE = "\n![{}](benchmarks.png)\n"
PANELS = {"step": "images per second of a step", "quality": "KID after the same time"}
STEP = """
## A step of training{where}

The U-Net of google/ddpm-cifar10-32 at width {width}, {size}×{size}×3 random images in memory.

- "ours" is `Trainer.step` with everything in it: noise, clipping of gradients, optimizer, EMA.
- "diffusers" is a step of its `train_unconditional.py`, in a loop without accelerate. The script has attention heads of
  8 channels (the published model has one head), and its EMA is off by default.
- "lucidrains" is a step of its `Trainer`, which updates its EMA in every tenth step. **It has another U-Net**, as
  similar as its options allow, with other numbers of parameters and operations. Its share can be compared, its images/s
  cannot.

bf16 is `torch.autocast`.

Median of {rounds} rounds in which all candidates take turns. The share compares a step with the fastest matrix product
(GEMM) in the same rounds and the same precision. torch's `FlopCounterMode` counts the operations, forward and backward.
Convolutions use another library than matrix products and may be faster: then the share exceeds 100 %.
"""
OPERATIONS = """
## Where the time of a step goes{where}

Our step in {precision} at batch {batch}, measured with torch's profiler; {seconds:.3f} s without the profiler. The
table lists the operations by the time that is spent in the operation itself.
"""
QUALITY = """
## Quality after the same time

Each candidate trains from scratch on the same digits for the same number of seconds, including the time to read them.
The time to generate digits afterwards does not count.

- "ours" is the default configuration with 10 steps of DPM-Solver++ (its default guidance is {usual}); its variants are
  larger networks.
- The peers have our warm-up and cosine decay, which ends with the time as ours does; EMA; the faster of fp32 and bf16;
  and their own best sampler (diffusers: DPM-Solver++, 20 steps; lucidrains: DDIM, 50 steps).
- diffusers' script predicts noise, without classes. `-v` gives its network our target and schedule (v and cosine),
  which the script does not have. `-classes` gives a network the classes.

Candidates with classes generate digits without and with guidance; lucidrains', which take minutes, only without.
Guidance gives clearer digits and less variety, so it raises the accuracy and worsens the KID. KID and FD compare with
the holdout images, in features of the project's classifier; KID ± is the deviation over subsets. KID is unbiased, so
real images are close to 0, some below. Accuracy is the share that the classifier recognises as the requested class. The
table is sorted by KID. Each candidate is saved as soon as it is measured, so a command below may name candidates that
it did not reach.
"""
GROWTH = """
## How the cost grows

Our step with a small U-Net, including the time to read its images, in {precision}. The values are medians of rounds in
which all points of a table take turns. The stores are memory-mapped files that the kernel has cached, so no disk is
measured.
"""
COLUMNS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "batch": ("batch", lambda row: f"{row['value']}"),
    "width": ("width", lambda row: f"{row['value']} ({row['parameters'] / 1e6:.2f} M)"),
    "resolution": ("pixels per side", lambda row: f"{row['value']}"),
    "images": ("images in the store", lambda row: f"{row['value']:,}"),
}


def make(found: dict[str, Found]) -> str:
    """The page, of what was measured; a part that was not is left out."""
    parts = [INTRODUCTION]
    if shown := ", and ".join(text for name, text in PANELS.items() if found[name]):
        parts.append(PICTURE.format(shown[0].upper() + shown[1:]))
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
    gemm = "\nGFLOP/s of matrix products, by shape:\n\n" + table(("precision", *shapes), products)
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
    header = ("kind", "share of the time", "GFLOP/s", "share of the fastest matrix product")
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
        "ms per iteration",
        "ms forward, backward, optimizer",
        "ms of the loop",
        "share",
    )
    text += "\nThe time that the loop adds to the bare step:\n\n" + table(header, loop) if loop else ""
    return text + processes(by["processes"])


def processes(rows: list[Row]) -> str:
    """Images a second of the training, beside those of the first row with the same settings."""
    if not rows:
        return ""
    base = {row["settings"]: row["images_per_second"] for row in reversed(rows)}
    lines = [
        (f"`{row['settings']}`" if row["settings"] else "default", f"{row['value']}", f"{row['threads']}",
         f"{row['images_per_second']:.0f}", f"{row['images_per_second'] / base[row['settings']]:.2f}×")
        for row in rows
    ]  # fmt: skip
    header = ("training", "processes", "threads per process", "images/s", "speed")
    return "\nThe training by torchrun, with the cores divided among the processes:\n\n" + table(header, lines)
