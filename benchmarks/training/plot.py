"""Plot docs/benchmarks.png: images per second of a step, and KID after equal training time."""

from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from benchmarks.training.page import Found
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

COLOURS = {"ours": "#d62728", "diffusers": "#1f77b4", "lucidrains": "#7f7f7f"}


def plot(found: dict[str, Found], file: Path) -> None:
    """Plot the parts that were measured."""
    parts = [(found[name], panel) for name, panel in (("step", steps), ("quality", kids)) if found[name]]
    if not parts:
        return
    height = max(3.0, 0.28 * max(len(part["rows"]) for part, _ in parts))
    figure, panels = plt.subplots(1, len(parts), figsize=(6.5 * len(parts), height), squeeze=False)
    for (part, panel), axes in zip(parts, panels[0], strict=True):
        panel(part, axes)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=110, bbox_inches="tight")
    plt.close(figure)


def bars(axes: Axes, rows: list[tuple[str, str, float, float]], form: str) -> None:
    """Plot horizontal bars from rows (label, project, value, spread), the first at the top, with their values."""
    labels, projects, values, spreads = (list(column) for column in zip(*rows, strict=True))
    container = axes.barh(labels, values, xerr=spreads if any(spreads) else None, color=[COLOURS[p] for p in projects])
    axes.bar_label(container, fmt=form, padding=3, fontsize=7)
    axes.tick_params(labelsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.12)


def steps(found: Found, axes: Axes) -> None:
    """Plot images per second."""
    order = sorted(found["rows"], key=lambda row: (row["precision"], -row["batch"], -row["images_per_second"]))
    rows = [
        (f"{row['name']}, {row['precision']}, {row['batch']}", project(row), row["images_per_second"], 0.0)
        for row in order
    ]
    bars(axes, rows, "%.1f")
    axes.set_title("A step: images/s, by precision and batch", fontsize=9)


def kids(found: Found, axes: Axes) -> None:
    """Plot KID after the most common training time, with the KID of real images as a line."""
    [(seconds, _)] = Counter(row["seconds"] for row in found["rows"]).most_common(1)
    order = sorted((row for row in found["rows"] if row["seconds"] == seconds), key=lambda row: row["kid"])
    rows = [(label(row, order), project(row), row["kid"], row["kid_spread"]) for row in order]
    bars(axes, rows, "%.2f")
    axes.axvline(found["floor"]["kid"], color="black", linewidth=0.8, linestyle="--")
    axes.set_title(f"KID to the holdout after {seconds:g} s of training; dashed: real images", fontsize=9)


def label(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the name, followed by the settings that distinguish rows of the same name."""
    same = [other for other in rows if other["name"] == row["name"]]
    parts = [f"{name} {row[name]:g}" for name in ("lr", "seed", "guidance") if len({other[name] for other in same}) > 1]
    return ", ".join([row["name"], *parts])


def project(row: dict[str, Any]) -> str:
    """Return the project: the first word of a candidate's name."""
    found: str = row["name"].replace("-", " ").split(" ")[0]
    return found
