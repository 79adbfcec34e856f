"""Results as Markdown: the summary of a run, and the section of docs/benchmarks.md.

This module imports only the standard library: it runs before the kit's packages are on the path.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.plan import Part

Row = Mapping[str, Any]
Format = Callable[[Any], str]
DIGITS = 3


def number(value: Any) -> str:
    """Return a number with three significant digits, thousands separated; other values as they are."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or abs(value) >= 10**DIGITS:
        return f"{value:,.0f}"
    return f"{value:.{DIGITS}g}" if abs(value) >= 1e-4 or not value else f"{value:.1e}"


def percent(value: float) -> str:
    """Return a share in percent."""
    return f"{value:.1%}" if value < 1e-1 else f"{value:.0%}"


def millions(value: float) -> str:
    """Return a number in millions."""
    return f"{value / 1e6:.1f} M"


@dataclass(frozen=True)
class Table:
    """A table of a part: the rows that have its first key.

    Attributes:
        columns: heading, key and format of each column; a column in which no row has a value is left out.
        note: a sentence above it.
    """

    columns: tuple[tuple[str, str, Format], ...]
    note: str = ""

    def markdown(self, rows: Sequence[Row]) -> str:
        """Return the table, or nothing if no row belongs to it."""
        own = [row for row in rows if self.columns[0][1] in row]
        if not own:
            return ""
        used = [each for each in self.columns if any(row.get(each[1]) not in (None, "") for row in own)]
        lines = [[heading for heading, _, _ in used], ["---", *["---:"] * (len(used) - 1)]]
        lines += [["" if row.get(key) is None else form(row[key]) for _, key, form in used] for row in own]
        note = f"{self.note}\n\n" if self.note else ""
        return note + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


STEP = Table(
    (
        ("candidate", "candidate", str),
        ("parameters", "parameters", millions),
        ("precision", "precision", str),
        ("batch", "batch", number),
        ("images/s", "images_per_second", number),
        ("ms per step", "ms", number),
        ("host ms", "host_ms", number),
        ("GPU ms", "gpu_ms", number),
        ("peak GiB", "peak_gib", number),
        ("TFLOP/s", "teraflops", number),
        ("share of the product", "share", percent),
        ("first step, s", "first_step_seconds", number),
        ("note", "note", str),
    )
)
FACTS = Table((("what", "what", str), ("value", "value", str), ("unit", "unit", str)))
TABLES: dict[str, tuple[Table, ...]] = {
    "machine": (FACTS,),
    "step": (STEP,),
    "profile": (
        Table((("cause", "cause", str), ("calls", "calls", number), ("ms", "ms", number), ("share", "share", percent))),
        Table(
            (
                ("convolution", "convolution", str),
                ("uses", "uses", number),
                ("pass", "pass", str),
                ("`cudnn.benchmark`", "cudnn_benchmark", number),
                ("ms", "ms", number),
                ("TFLOP/s", "teraflops", number),
            ),
            "Each shape of a convolution separately, channels last:",
        ),
    ),
    "peers": (STEP,),
    "tests": (
        Table((("passed", "passed", number), ("failed", "failed", number), ("skipped", "skipped", number))),
        Table((("test", "test", str), ("outcome", "outcome", str), ("message", "message", str))),
    ),
    "distributed": (FACTS,),
    "sampling": (
        Table(
            (
                ("candidate", "candidate", str),
                ("precision", "precision", str),
                ("batch", "batch", number),
                ("steps", "steps", number),
                ("images/s", "images_per_second", number),
                ("note", "note", str),
            )
        ),
    ),
    "evaluation": (
        Table(
            (
                ("what", "what", str),
                ("device", "device", str),
                ("images", "images", number),
                ("seconds", "seconds", number),
                ("images/s", "images_per_second", number),
                ("note", "note", str),
            )
        ),
    ),
    "training": (
        Table(
            (
                ("seconds", "seconds", number),
                ("images seen", "images_seen", number),
                ("validation loss", "validation_loss", number),
            )
        ),
        Table(
            (
                ("classifier fitted in, s", "classifier_seconds", number),
                ("holdout images", "holdout", number),
                ("its accuracy there", "accuracy_on_holdout", percent),
            ),
            "KID and FD are measured against the holdout, in features of this classifier, fitted to the same images:",
        ),
        Table(
            (
                ("images", "scored", str),
                ("number", "images", number),
                ("KID", "kid", number),
                ("± deviation", "kid_spread", number),
                ("FD", "fd", number),
                ("classifier agrees", "accuracy", percent),
                ("sampled in, s", "sampling_seconds", number),
            )
        ),
    ),
    "compiled": (STEP,),
}
"""The tables of each part, by its name. A part without an entry is shown by its status alone."""


def summarise(found: Mapping[str, Any], plan: Sequence[Part]) -> str:
    """Return the whole summary: how the parts ended, then what they measured.

    Args:
        found: what ``results.json`` holds of each part, by its name.
        plan: the parts in their order; parts without results are left out.
    """
    ran = [part for part in plan if part.name in found]
    lines = ["| part | status | seconds | limit | reason |", "| --- | --- | ---: | ---: | --- |"]
    for part in ran:
        this = found[part.name]
        reason = str(this["reason"]).replace("|", "\\|")
        lines.append(f"| {part.name} | {this['status']} | {this['seconds']:.0f} | {this['limit']:.0f} | {reason} |")
    sections = [section(part, found[part.name]) for part in ran]
    return "\n".join(["# Results of the GPU kit", "", *lines, "", *sections])


def section(part: Part, this: Mapping[str, Any], heading: str = "##") -> str:
    """Return what a part measured, under a heading, with machine, versions, date and command."""
    tables = [text for table in TABLES.get(part.name, ()) if (text := table.markdown(this["rows"]))]
    reason = [f"Not complete ({this['status']}): {this['reason'] or 'it was not ended.'}\n"] if incomplete(this) else []
    return "\n".join([f"{heading} {part.title}", "", *reason, *tables, provenance(this)])


def incomplete(this: Mapping[str, Any]) -> bool:
    """Return whether a part did not end well, so that rows may be missing."""
    return this["status"] != "done"


def provenance(this: Mapping[str, Any]) -> str:
    """Return machine, date and command of a part's measurement."""
    if "machine" not in this:
        return ""
    machine, versions = this["machine"], this["versions"]
    gpu = f"{machine['gpu']}; " if machine.get("gpu") else ""
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Measured {this['date']} on {gpu}{machine['cpu']}, {machine['cores']} cores; {named}; "
        f"`{this['command']}`, {this['seconds']:.0f} s.\n"
    )
