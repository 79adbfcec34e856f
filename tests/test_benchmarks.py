"""benchmarks/training measures the right things; no test depends on speed."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.training import __main__ as bench
from benchmarks.training import checkpoints, memory, operations, processes, recipes, step
from benchmarks.training.growth import GRID, SMALL, in_turns, loop_overhead, sparse_store
from benchmarks.training.learners import Learner, Ours
from benchmarks.training.networks import Shape, flops_per_image, our_parameters, parameter_count
from benchmarks.training.peers import Diffusers, Lucidrains, diffusers_network, lucidrains_network
from benchmarks.training.project import Digits, parameters
from benchmarks.training.quality import CANDIDATES, IDENTITY, measure, resolved, scores_of, train
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project
from PIL import Image

from ddpm_kedro.cli import run as run_command
from ddpm_kedro.datasets.checkpoint import CheckpointDataset
from ddpm_kedro.hardware import choose_hardware
from ddpm_kedro.metrics.classifier import Classifier
from ddpm_kedro.metrics.extractor import FeatureExtractor
from ddpm_kedro.models import UNet
from tests.conftest import (
    DIFFUSION,
    MODEL,
    NO_AUGMENTATION,
    OPTIMIZER,
    SAMPLING,
    TRAINING,
    Project,
    changed,
    make_store,
)
from tests.fake_gpu import GPU, fake_gpu
from tests.processes import FORKS
from tests.training.test_loop import make_run, run_training

FP32 = choose_hardware("cpu", "fp32")
TINY = Shape(width=8, multipliers=(1, 2), attention=(), blocks=1, groups=4, channels=1, size=8)
GROUPS = {
    "model": MODEL,
    "diffusion": DIFFUSION,
    "augmentation": NO_AUGMENTATION,
    "optimizer": changed(OPTIMIZER, lr=3e-3, warmup_images=0),
    "training": TRAINING,
}


def learner(project: str, shape: Shape, **options: Any) -> Learner:
    if project == "ours":
        groups = GROUPS | {"model": our_parameters(shape)}
        return Ours(groups, make_store(8, 3 if shape.classes else 0), FP32)
    kind = {"diffusers": Diffusers, "lucidrains": Lucidrains}[project]
    return kind(shape, GROUPS["optimizer"], FP32, **options)


def test_our_network_equals_diffusers() -> None:
    with torch.device("meta"):
        ours, theirs, other = UNet(our_parameters(Shape()), 3), diffusers_network(Shape()), lucidrains_network(Shape())
    assert parameter_count(ours) == parameter_count(theirs) == 35_746_307  # google/ddpm-cifar10-32
    assert flops_per_image(theirs, Shape()) == pytest.approx(flops_per_image(ours, Shape()), rel=0.02)
    assert parameter_count(other) != parameter_count(ours)  # as the page says


def test_the_operations_of_convolutions_are_counted() -> None:
    """Two convolutions: 2 · 9 operations per weight and pixel; three times, except for the gradient of x."""

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 1, 3, padding=1)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))

    assert flops_per_image(Small(), TINY) == 2 * 9 * 4 * 64 * (2 + 3)  # without the gradient of x


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(
    ("project", "options"),
    [
        ("ours", {}),
        ("diffusers", {}),
        ("diffusers", {"v": True, "ema": True, "channels_last": True}),
        ("lucidrains", {}),
    ],
)
def test_steps_lower_the_loss(project: str, options: dict[str, Any], classes: int) -> None:
    candidate, store = learner(project, replace(TINY, classes=classes), **options), make_store(8, classes)
    labels = torch.from_numpy(store.labels) if classes else None
    losses = [float(candidate.step(index, torch.from_numpy(store.images), labels, 8 * 120)) for index in range(120)]
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("project", ["ours", "diffusers", "lucidrains"])
@pytest.mark.parametrize("size", [8, 7])
def test_samples_have_the_size_of_the_training_images(project: str, classes: int, size: int) -> None:
    shape = replace(TINY, classes=classes, size=size)
    store = make_store(8, classes, (size, size))
    candidate = (
        Ours(GROUPS | {"model": our_parameters(shape)}, store, FP32) if project == "ours" else learner(project, shape)
    )
    labels = torch.from_numpy(store.labels[:4]) if classes else None
    candidate.step(0, torch.from_numpy(store.images), None if labels is None else torch.from_numpy(store.labels), 8)
    samples = candidate.sample(labels, 4, 1.75)
    assert samples.shape == (4, 1, size, size)
    assert samples.abs().max() <= 1


def test_training_and_its_schedule_end_with_the_time() -> None:
    class Recorder:
        hardware, network = FP32, torch.nn.Identity()

        def __init__(self) -> None:
            self.lengths: list[int] = []

        def step(self, index: int, pixels: torch.Tensor, labels: Any, num_images: int) -> torch.Tensor:
            assert labels is not None
            torch.arange(10**5).sort()
            self.lengths.append(num_images)
            return torch.zeros(())

        def sample(self, labels: Any, count: int, guidance: float) -> torch.Tensor:
            raise NotImplementedError

    recorder = Recorder()
    seen = train(recorder, make_store(8), 4, True, 0.3, 0, 10**6)
    assert seen == 4 * len(recorder.lengths)
    assert recorder.lengths[0] == 10**6
    assert recorder.lengths[-1] == pytest.approx(seen, rel=0.2)


def test_every_candidate_is_trained_sampled_and_evaluated() -> None:
    store = make_store(40)
    classifier = FeatureExtractor(
        "classifier", Classifier(1, 3).eval(), store.image_shape, store.class_names, store.made_by
    )
    digits = Digits(GROUPS, store, store, classifier)
    for name in ("ours", "diffusers-16-v-classes", "lucidrains-16"):
        rows = measure(name, digits, 0.05, 20, 1, 2e-3)
        assert tuple(row["guidance"] for row in rows) == CANDIDATES[name].guidance
        for row in rows:
            assert set(IDENTITY) < set(row)
            assert row["images_seen"] >= row["batch"]
            assert row["images"] == 20
    assert resolved("ours", digits, 2e-3).lr == GROUPS["optimizer"].lr  # the default
    assert {candidate.project for candidate in CANDIDATES.values()} == {"ours", "diffusers", "lucidrains"}


def test_scores_are_computed_from_the_samples() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(40, 8), torch.arange(40) % 2
    logits = torch.nn.functional.one_hot(labels, 2) * 100.0
    logits[:10] = logits[:10].flip(1)
    same, other = (scores_of(values, logits, features, labels) for values in (features, features + 3))
    assert same["kid"] < 0.1 < other["kid"]
    assert same["fd"] == pytest.approx(0, abs=1e-3)
    assert other["fd"] == pytest.approx(8 * 3**2, rel=1e-3)
    assert same["accuracy"] == 0.75
    assert same["confidence"] == pytest.approx(1)
    assert scores_of(features, logits, features, None)["accuracy"] is None


def test_a_share_is_operations_over_time_over_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "PRODUCTS", [(64, 64, 64), (128, 64, 64)])
    monkeypatch.setattr(step.multiprocessing, "get_context", lambda _: FORKS)  # importing torch takes seconds
    shape = Shape(width=32, multipliers=(1,), attention=(), blocks=1, size=8)
    found = step.measure(GROUPS, shape, ["ours", "lucidrains"], [2], ["bf16"], 2)
    assert [(row["name"], row["precision"]) for row in found["rows"]] == [
        ("ours", "bf16"),
        ("lucidrains", "bf16"),
    ]
    for row in found["rows"]:
        best = max(found["gemm"][row["precision"]].values())
        assert row["share"] == pytest.approx(row["flops_per_image"] * 2 / row["seconds"] / best)
        assert row["fastest"] <= row["seconds"] <= row["slowest"]


def test_the_operations_of_one_step_are_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "products", lambda *_: {"": (lambda: None, 1.0)})
    shape = Shape(width=32, multipliers=(1,), attention=(), blocks=1, size=8)
    found = operations.measure(GROUPS, shape, 2, "fp32", 1)
    by_name = {row["operation"]: row for row in found["rows"]}
    network = UNet(our_parameters(shape), 3)
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in network.modules())
    assert 0 < by_name["aten::mkldnn_convolution"]["calls"] <= convolutions  # some are matrix products
    assert found["rows"] == sorted(found["rows"], key=lambda row: -row["seconds"])
    counted = sum(each["flops"] for each in found["reached"].values())
    assert 0.9 < counted / (2 * flops_per_image(network, shape)) <= 1  # the rest is attention
    assert 0 < found["reached"]["convolutions"]["seconds"] <= sum(row["seconds"] for row in found["rows"])


def test_growth_is_measured_at_every_point(tmp_path: Path) -> None:
    assert [len(set(grid)) for grid in GRID.values()] == [6, 4, 4]
    tiny = replace(TINY, channels=3)
    points = [("images", count, 4, tiny, sparse_store(tiny, count, tmp_path)) for count in (10, 10**6)]
    assert (tmp_path / "1000000.npy").stat().st_blocks * 512 < 10**7  # 192 MB by its length
    rows = in_turns(points, GROUPS, 2)
    assert [(row["what"], row["value"], row["batch"]) for row in rows] == [("images", 10, 4), ("images", 10**6, 4)]
    loop = loop_overhead(GROUPS, replace(SMALL, width=8, size=8), 4, 5)
    assert loop["overhead"] == pytest.approx(loop["seconds"] - loop["bare"])


def test_processes_are_started_by_torchrun_and_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[list[str], dict[str, str]]] = []

    def call(command: list[str], folder: Path, environment: dict[str, str]) -> None:
        called.append((command, environment))
        report = folder / "data" / "08_reporting" / "training_history.csv"
        report.parent.mkdir(exist_ok=True)
        report.write_text("images_seen,images_per_second\n8,1.0\n16,10.0\n24,30.0\n32,20.0\n")

    monkeypatch.setattr(processes, "call", call)
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 6)
    rows = processes.measure([1, 2], 64, "optimizer.lr=1e-3", 1)
    assert [(row["value"], row["threads"], row["images_per_second"]) for row in rows] == [(1, 6, 20.0), (2, 3, 20.0)]
    command, environment = called[-1]
    assert command[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert "training.num_images=64," in command[-1]
    assert command[-1].endswith(",optimizer.lr=1e-3")
    assert environment == {"OMP_NUM_THREADS": "3"}


@pytest.mark.parametrize("project", ["diffusers", "lucidrains"])
def test_the_peers_leave_nothing_on_the_cpu(project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "item", lambda _: 0.0)  # a fake has no value
    monkeypatch.setattr(torch.Tensor, "backward", lambda _: None)
    kind, options = {"diffusers": (Diffusers, {"ema": False}), "lucidrains": (Lucidrains, {})}[project]
    with fake_gpu():
        peer = kind(Shape(width=8, size=8, groups=4, channels=1, classes=3), GROUPS["optimizer"], GPU, **options)
        loss = peer.loss(torch.zeros(2, 1, 8, 8, device="cuda"), torch.zeros(2, dtype=torch.int64, device="cuda"))
    assert loss.device.type == "cuda"


def test_every_kept_checkpoint_is_evaluated(tmp_path: Path) -> None:
    store = make_store(40)
    run = make_run(store, training={"num_images": 48, "report_interval": 16, "checkpoint_interval": 16})
    where = {"filepath": str(tmp_path / "06_models/checkpoint.pt"), "archive": str(tmp_path / "runs")}
    for each in run_training(run, store):
        CheckpointDataset(**where, keep=9).save(each.checkpoint)
    classifier = FeatureExtractor(
        "classifier", Classifier(1, 3).eval(), store.image_shape, store.class_names, store.made_by
    )
    digits = Digits(GROUPS, store, store, classifier)
    rows = checkpoints.measure(tmp_path, digits, changed(SAMPLING, num_inference_steps=2), 20)
    assert [row["images_seen"] for row in rows] == [16, 32, 48]
    assert 0 < rows[0]["seconds"] < rows[1]["seconds"] < rows[2]["seconds"]
    text = checkpoints.report(rows, digits, 20)
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:]] == ["16", "32", "48", "real training images"]


@pytest.mark.slow
def test_recipes_are_trained_in_turns_on_given_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, brightness in (("dark", 40), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(40):
            pixels = np.random.default_rng(number).integers(brightness - 30, brightness + 30, (16, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / name / f"{number}.png")

    def call(command: list[str], folder: Path, _: dict[str, str]) -> None:
        """Run ``kedro run`` in this process: a new one imports torch for seconds."""
        monkeypatch.chdir(folder)
        bootstrap_project(folder)
        done = CliRunner().invoke(run_command, command[3:])
        assert done.exit_code == 0, done.output

    monkeypatch.setattr(recipes, "call", call)
    monkeypatch.setattr(recipes, "GUIDANCE", (1.0, 1.5))
    monkeypatch.setattr(recipes.prepare, "__defaults__", (tmp_path / "results",))
    saved: list[dict[str, Any]] = []
    monkeypatch.setattr(bench, "load", lambda part: {})
    monkeypatch.setattr(bench, "save", lambda part, command, found, device: saved.append({"part": part} | found))
    bench.main(["recipes", "--tiny", "--source", str(tmp_path / "images"), "--params", "images.size=8"])
    found = saved[-1]
    assert found["part"] == "recipes_tiny"  # nothing that the page shows
    assert len(saved) == 4
    assert [(row["name"], row["seed"], row["guidance"]) for row in found["rows"]] == [
        (name, seed, scale) for seed in (0, 1) for name in ("chosen", "edm") for scale in (1.0, 1.5)
    ]
    for row in found["rows"]:
        assert row["images_seen"] >= row["batch"] == 32
        assert (row["seconds"], row["images"], row["source"]) == (0.2, 20, "images")
        assert math.isfinite(row["kid"])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| chosen | ") for line in lines) == 3  # two guidance scales, and the parameters
    assert "| edm | `use.diffusion=edm` |" in lines
    [fitted] = (tmp_path / "results" / "images").glob("classifier_*_128.pt")
    time_of_fit = fitted.stat().st_mtime_ns
    images = recipes.images_of(tmp_path / "results" / "images", 128)
    assert fitted.stat().st_mtime_ns == time_of_fit  # it is fitted once
    assert images.training.image_shape == (3, 8, 8)


def test_every_recipe_has_valid_parameters(project: Project) -> None:
    together: dict[str, Any] = {}
    for changes in recipes.RECIPES.values():
        for name, value in changes.items():
            group, key = name.split(".")
            assert group != "use" or (project.folder / "conf/base/groups" / key / f"{value}.yml").exists()
        together |= changes
    groups = parameters(project.folder, together)
    for name, value in together.items():
        group, key = name.split(".")
        assert group == "use" or getattr(groups[group], key) == (tuple(value) if isinstance(value, list) else value)


def test_labels_are_as_frequent_as_in_the_images() -> None:
    store = make_store(40, classes=3)
    assert sorted(recipes.labels_of(store, 40).tolist()) == sorted(store.labels.tolist())
    assert recipes.labels_of(store, 80).bincount().tolist() == [28, 26, 26]


def test_recipes_need_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--source", str(tmp_path / "none.tar")]):
        with pytest.raises(SystemExit):
            bench.parse(["recipes", *words])
        assert "recipes needs images: --source=images.tar" in capsys.readouterr().err
    assert "recipes" not in bench.parse([]).parts
    assert bench.parse(["recipes", "--source", str(tmp_path), "--only", "chosen,edm"]).only == ["chosen", "edm"]
    tiny = bench.parse(["recipes", "--source", str(tmp_path), "--tiny", "--seeds", "7"])
    assert (tiny.seconds, tiny.images, tiny.seeds) == (0.2, 20, [7])


def test_the_memory_of_every_case_can_be_measured() -> None:
    for tiny, count in ((True, 1), (False, 26)):
        cases = list(memory.cases(GROUPS, tiny=tiny))
        assert len(cases) == count
        for case in cases:
            groups = {name: kind.model_validate(case["groups"][name]) for name, kind in memory.GROUPS.items()}
            assert case["images"] * groups["training"].accumulation_steps == groups["training"].batch_size
    line = memory.line(cases[3] | {"measured": 2.5e9, "estimate": 2e9})
    assert line == "| pictures | 32×32 | 32 | fp32 | accumulation_steps=4 | 2,500 | 2,000 | 0.80 |"
