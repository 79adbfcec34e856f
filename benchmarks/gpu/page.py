"""``python -m benchmarks.gpu.page``: write what the kit measured into docs/benchmarks.md. ``make gpu-docs`` calls it.

The section is between two marks. ``make bench`` writes the rest of the page and keeps the section.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.environment import ROOT
from benchmarks.gpu.plan import PARTS
from benchmarks.gpu.runner import RESULTS
from benchmarks.gpu.summary import section

PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- made by make gpu-docs -->", "<!-- end of what make gpu-docs makes -->"
INTRODUCTION = """
## The GPU kit

One command measures the peak rates of the machine, our step and its profile, the steps of diffusers' script and
lucidrains' trainer (unchanged and tuned), torchrun with NCCL, sampling (also with `DDIMPipeline`), evaluation, and a
training of 100 seconds with its samples. It also runs the tests that depend on the device. Run it in a copy of this
project, on a machine with a GPU and a Python that has torch, torchvision and scipy:

```bash
make gpu-kit gpu
```

`make gpu-kit` downloads a few wheels and CIFAR-10 into `.gpu-kit/`; it installs nothing. If the machine with the GPU
has no network, make the kit on another machine, for the Python version of the first, and copy the project's folder with
the kit:

```bash
make gpu-kit PYTHON_VERSION=3.12 IMAGES=cifar10.tar   # IMAGES: a folder or an archive, one folder per class
PYTHON=/opt/venv/bin/python make gpu                  # on the machine with the GPU
```

`data/benchmarks/gpu/` then contains `results.json`, `summary.md`, `samples.png` and the log. They are written after
every row, so an interrupted run loses nothing. `make gpu ARGS="--parts step,tests"` measures only these parts again,
`make gpu-docs` writes the results into this page, and `make gpu ARGS="--device cpu --tiny"` tries the kit without a
GPU.
"""
NOTHING = "\nThis page has no results of the GPU kit yet.\n"


def make_section(parts: Mapping[str, Any]) -> str:
    """Return the section, of what ``results.json`` holds of each part."""
    sections = [section(part, parts[part.name], "###") for part in PARTS if part.name in parts]
    text = "\n".join(["", *sections]) if sections else NOTHING
    return f"{BEGIN}\n{INTRODUCTION}{text}\n{END}\n"


def find_section(page: str) -> str:
    """Return the section of a page, with its marks; nothing if it has none."""
    begin, end = page.find(BEGIN), page.find(END)
    return page[begin : end + len(END)] + "\n" if 0 <= begin < end else ""


def insert(page: str, new: str) -> str:
    """Return the page with the new section in place of the old one, or at its end."""
    old = find_section(page)
    return page.replace(old, new) if old else page.rstrip("\n") + "\n\n" + new


def main(words: list[str]) -> None:
    """Write the section from a results file, by default from the last run."""
    file = Path(words[0]) if words else ROOT / "data/benchmarks/gpu" / RESULTS
    parts = json.loads(file.read_text())["parts"] if file.exists() else {}
    PAGE.write_text(insert(PAGE.read_text(), make_section(parts)))


if __name__ == "__main__":
    main(sys.argv[1:])
