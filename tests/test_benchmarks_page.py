"""docs/benchmarks.md and its figure have every number that was measured, and no other."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.training import page, plot
from benchmarks.training.__main__ import parse
from benchmarks.training.results import load, merged, save

AROUND = {
    "machine": {"cpu": "A CPU", "cores": 12, "threads": 11, "native_bf16": True},
    "versions": {"python": "3.11.99", "torch": "2.99.1"},
    "date": "2026-01-02",
    "command": 'make bench ARGS="step"',
}
STEP_ROW = {
    "name": "ours",
    "parameters": 35_746_307,
    "precision": "bf16",
    "batch": 37,
    "seconds": 1.234,
    "fastest": 1.123,
    "slowest": 1.345,
    "images_per_second": 29.98,
    "flops_per_image": 37.32e9,
    "flops_per_second": 987e9,
    "share": 0.43,
}
QUALITY_ROW = {
    "name": "diffusers-32",
    "parameters": 123_456,
    "precision": "fp32",
    "batch": 38,
    "lr": 0.00125,
    "seconds": 217.0,
    "seed": 6,
    "classes": True,
    "images_seen": 76_543,
    "guidance": 1.75,
    "images": 499,
    "kid": 0.234,
    "kid_spread": 0.056,
    "fd": 12.34,
    "accuracy": 0.876,
    "confidence": 0.912,
}
RECIPE_ROW = {
    "source": "tiles.tar",
    "seconds": 613.0,
    "guidance": 1.25,
    "images_seen": 31_244,
    "batch": 39,
    "parameters": 1_234_567,
    "precision": "bf16",
    "images": 2001,
    "fd": 6.54,
    "accuracy": 0.543,
}
GROWTH_ROWS = [
    {"what": what, "value": value, "batch": 16, "precision": "bf16", "parameters": 1_570_000, "seconds": seconds}
    | {"per_image": seconds / 16}
    for what, value, seconds in (("batch", 129, 0.3216), ("width", 65, 0.4217), ("images", 1_234_567, 0.5218))
]
LOOP_ROW = {"what": "loop", "value": 33, "batch": 33, "precision": "bf16", "parameters": 1, "per_image": 1.0}
LOOP_ROW |= {"seconds": 0.7654, "bare": 0.7321, "overhead": 0.0333, "overhead_share": 0.0435}
PROCESS_ROWS = [
    {"what": "processes", "value": count, "threads": 3 - count, "settings": settings, "images_per_second": rate}
    for settings, count, rate in (
        ("", 1, 345.0),
        ("", 2, 621.0),
        ("use.model=medium", 1, 40.0),
        ("use.model=medium", 2, 38.0),
    )
]
FOUND: dict[str, Any] = {
    "step": AROUND
    | {"rows": [STEP_ROW], "gemm": {"bf16": {"2048×2048×2048": 2.295e12}}, "rounds": 7, "width": 96, "size": 48},
    "operations": AROUND
    | {
        "rows": [{"operation": f"aten::op{index}", "calls": 7 + index, "seconds": 0.2} for index in range(14)],
        "seconds": 2.67,
        "batch": 36,
        "precision": "bf16",
        "gemm": 876e9,
        "reached": {"convolutions": {"flops": 1.2e12, "seconds": 1.6}, "matrix products": {"flops": 0, "seconds": 0.7}},
    },
    "quality": AROUND
    | {
        "rows": [QUALITY_ROW],
        "floor": {"kid": 0.012, "kid_spread": 0.034, "fd": 2.34, "accuracy": 0.987, "confidence": 0.976},
        "commands": ["make bench", 'make bench ARGS="quality"'],
    },
    "recipes": AROUND
    | {
        "rows": [
            RECIPE_ROW | {"seed": seed, "kid": kid, "name": name, "changes": changes}
            for name, changes, kids in (
                ("chosen", "{}", (0.811, 0.813)),
                ("edm", '{"use.diffusion": "edm", "model.channel_multipliers": [1, 2]}', (0.423, 0.427)),
            )
            for seed, kid in enumerate(kids)
        ],
        "real": {"tiles.tar": {"kid": 0.007, "kid_spread": 0.001, "fd": 0.21, "accuracy": 0.871, "confidence": 0.9}},
    },
    "growth": AROUND | {"rows": [*GROWTH_ROWS, LOOP_ROW, *PROCESS_ROWS]},
}
NUMBERS = {
    "step": [
        "| ours | 35,746,307 | bf16 | 37 | 1.234 (1.123 – 1.345) | 29.98 | 37.32 | 987 | 43% |",
        "| bf16 | 2,295 |",
        "medians of 7 interleaved rounds",
        "at width 96 on 48×48",
        "2026-01-02 on A CPU, 12 cores, 11 threads, native bfloat16; python 3.11.99, torch 2.99.1; `make bench ARGS",
    ],
    "operations": [
        "at batch 36, by torch's profiler; it takes 2.670 s",
        "| aten::op0 | 7 | 200 | 7.1% |",
        "| others | 39 | 400 | 14.3% |",
        "The fastest matrix product: 876 GFLOP/s",
        "| convolutions | 57% | 750 | 86% |",
        "| matrix products | 25% | 0 | 0% |",
    ],
    "quality": [
        "| 123,456 | fp32 | 38 | 0.00125 | 6 | 76,543 | 1.75 | 499 | 0.234 ± 0.056 | 12.3 | 87.6% | 91.2% |",
        "| 0.012 ± 0.034 | 2.3 | 98.7% | 97.6% |",
        "After 217 s",
        '`make bench`, `make bench ARGS="quality"`',
    ],
    "recipes": [
        "`tiles.tar`, 613 s:",
        "| edm | 1,234,567 | bf16 | 39 | 31,244 | 1.25 | 2,001 | 0.423, 0.427 | 0.425 | 6.5 | 54.3% |\n| chosen |",
        "| 0.811, 0.813 | 0.812 |",
        "| real training images |  |  |  |  |  |  |  | 0.007 | 0.2 | 87.1% |",
        "| edm | `use.diffusion=edm`, `model.channel_multipliers=[1, 2]` |",
    ],
    "growth": [
        "| 129 | 321.6 | 20.10 |",
        "| 65 (1.57 M) | 421.7 | 26.36 |",
        "| 1,234,567 | 521.8 | 32.61 |",
        "| 33 | 765.4 | 732.1 | 33.3 | 4.3% |",
        "| default | 1 | 2 | 345 | 1.00× |",
        "| default | 2 | 1 | 621 | 1.80× |",
        "| `use.model=medium` | 2 | 1 | 38 | 0.95× |",
    ],
}


def test_the_page_has_every_number(tmp_path: Path) -> None:
    text = page.make(FOUND)
    for part, numbers in NUMBERS.items():
        for number in numbers:
            assert number in text, f"{part}: {number}"
    plot.plot(FOUND, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_results_of_a_gpu_have_their_own_headings() -> None:
    gpu = {"machine": AROUND["machine"] | {"gpu": "A GPU"}}
    text = page.make(FOUND | {f"{part}_cuda": FOUND[part] | gpu for part in ("step", "operations")})
    assert text.count("## A step of training\n") == text.count("## A step of training on a GPU\n") == 1
    assert text.count("## Where the time of a step goes on a GPU\n") == 1
    assert text.count("2026-01-02 on A GPU; A CPU, 12 cores") == 2


def test_parts_that_were_not_measured_are_left_out(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {part: {} for part in page.PARTS}
    assert page.make(nothing).strip() == page.INTRODUCTION.strip()
    plot.plot(nothing, tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()
    assert "## A step of training" not in page.make(FOUND | {"step": {}})
    alone = FOUND["growth"] | {"rows": PROCESS_ROWS}
    assert "The overhead of the loop" not in page.make(nothing | {"growth": alone})


def test_results_are_kept_until_they_are_measured_again(tmp_path: Path) -> None:
    assert load("step", tmp_path) == {}
    save("step", "make bench", {"rows": [1]}, folder=tmp_path)
    found = load("step", tmp_path)
    assert json.loads((tmp_path / "step.json").read_text()) == found
    assert found["rows"] == [1]
    assert set(found) == {"machine", "versions", "date", "command", "rows"}
    old, new = [{"name": "a", "kid": 1}, {"name": "b", "kid": 2}], [{"name": "b", "kid": 3}]
    assert merged(old, new, ("name",)) == [{"name": "a", "kid": 1}, {"name": "b", "kid": 3}]


def test_parts_and_lists_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = parse(["quality", "--only", "ours,diffusers-32", "--seconds", "20"])
    assert (arguments.parts, arguments.only, arguments.seconds) == ({"quality"}, ["ours", "diffusers-32"], 20)
    assert parse([]).parts >= {"step", "quality", "growth", "plot"}
    with pytest.raises(SystemExit):
        parse(["speed"])
    assert "unknown: speed" in capsys.readouterr().err
    assert parse(["step", "--only", "ours,diffusers (one head)"]).only == ["ours", "diffusers (one head)"]
    with pytest.raises(SystemExit):
        parse(["quality", "--only", "ours,theirs"])
    assert "no candidate: theirs; the candidates are ours, " in capsys.readouterr().err
