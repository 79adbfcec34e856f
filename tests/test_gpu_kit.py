"""The GPU kit: its plan, processes, files and packages; no test depends on the speed of a GPU."""

import importlib.metadata
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.gpu import environment, kit, page, steps, summary
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.images import made_images, read_pack
from benchmarks.gpu.part import run as run_part
from benchmarks.gpu.parts import distributed, profile
from benchmarks.gpu.parts import tests as tests_part
from benchmarks.gpu.plan import PARTS, START, WHOLE, chosen
from benchmarks.gpu.runner import Results, read_lines
from benchmarks.gpu.settings import FULL, TINY, Settings, parameters
from benchmarks.training.networks import flops_per_image, our_parameters
from packaging.requirements import Requirement
from PIL import Image

from ddpm_kedro.models import UNet
from ddpm_kedro.parameters import check_parameters
from tests.archives import Server, serve_cifar10
from tests.conftest import ROOT, Project
from tests.gpu_stubs import run_stubs, stub

CPU = Settings("cpu", True, None, Path())
WITH_TORCH = {
    *("torch", "torchvision", "triton", "numpy", "pillow", "scipy", "sympy", "mpmath", "networkx"),
    *("jinja2", "markupsafe", "filelock", "fsspec", "typing-extensions", "setuptools"),
}
NOT_IMPORTED = {"hf-xet"}  # huggingface_hub downloads with it


def results_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())["parts"]
    return found


def test_the_plan_adds_up_to_nine_minutes_and_ten_seconds() -> None:
    assert START + sum(part.limit for part in PARTS) <= WHOLE == 9 * 60 + 10
    for each in PARTS:
        assert (ROOT / f"benchmarks/gpu/parts/{each.name}.py").is_file()
        assert each.name in summary.TABLES


def test_parts_are_chosen_by_name_in_the_order_of_the_plan() -> None:
    assert [part.name for part in chosen(["tests", "machine"])] == ["machine", "tests"]
    assert chosen([]) == PARTS
    with pytest.raises(ValueError, match="unknown parts: speed; the parts are machine, step"):
        chosen(["speed"])


def test_a_part_that_fails_or_times_out_is_reported_with_its_reason(tmp_path: Path) -> None:
    bodies = {
        stub("crashes"): 'write(failed="ValueError: no such thing"); sys.exit(1)',
        stub("dies"): "import os; os.abort()",
        stub("hangs", limit=3): "time.sleep(600)",
        stub("works"): 'write(row={"what": "second", "value": 2})',
    }
    assert not run_stubs(tmp_path, bodies)
    found = results_of(tmp_path)
    assert [each["status"] for each in found.values()] == ["failed", "failed", "time limit", "done"]
    assert found["crashes"]["reason"] == "ValueError: no such thing"
    assert found["dies"]["reason"] == "The process ended without a reason: see the log."
    assert found["hangs"]["reason"] == "The limit of 3 s was over."
    assert all(each["rows"][0] == {"what": "first", "value": 1} for each in found.values())
    assert len(found["works"]["rows"]) == 2
    text = (tmp_path / "summary.md").read_text()
    assert "| crashes | failed |" in text
    assert re.search(r"\| hangs \| time limit \| \d+ \| 3 \| The limit of 3 s was over\. \|", text)


def test_a_limit_ends_the_children_of_a_part_too(tmp_path: Path) -> None:
    child = tmp_path / "child"
    body = f"""
import subprocess
process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(child)!r}, "w").write(str(process.pid))
process.wait()
"""
    run_stubs(tmp_path, {stub("starts another", limit=3): body})
    assert ended(int(child.read_text()))


def ended(pid: int) -> bool:
    """Return whether a process has ended, also as a zombie."""
    for _ in range(2400):
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_results_before_a_cut_off_are_kept(number: signal.Signals, tmp_path: Path) -> None:
    code = f"""
import signal, sys
from pathlib import Path
from tests.gpu_stubs import run_stubs, stub
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
run_stubs(Path({str(tmp_path)!r}), {{stub("first"): "", stub("second"): "time.sleep(600)", stub("third"): ""}})
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    for _ in range(2400):
        if (tmp_path / "results.json").exists() and results_of(tmp_path).get("second", {}).get("rows"):
            break
        time.sleep(0.05)
    process.send_signal(number)
    process.wait(120)
    found = results_of(tmp_path)
    assert {name: each["status"] for name, each in found.items()} == {"first": "done", "second": "cut off"}
    assert found["second"]["rows"] == [{"what": "first", "value": 1}]
    assert "| second | cut off |" in (tmp_path / "summary.md").read_text()


def test_a_part_that_runs_again_replaces_only_its_own_results(tmp_path: Path) -> None:
    one, other = stub("one"), stub("other")
    run_stubs(tmp_path, {one: "", other: 'write(row={"what": "old"})'})
    before = results_of(tmp_path)
    shutil.rmtree(tmp_path / "scratch")
    plan = [one, other]
    results = Results(tmp_path, plan, 'make gpu ARGS="--parts other"')
    results.update(other, "done", 2.0, 60, [{"row": {"what": "new"}}])
    after = results_of(tmp_path)
    assert after["one"] == before["one"]
    assert after["other"]["rows"] == [{"what": "new"}]
    assert after["other"]["command"] == 'make gpu ARGS="--parts other"'


def test_the_preparation_sleeps_while_a_part_is_timed_and_ends_before_the_last(tmp_path: Path) -> None:
    ticks = tmp_path / "ticks"
    prepare = f"import time\nwhile True:\n open({str(ticks)!r}, 'a').write('.')\n time.sleep(0.02)"
    count = (
        f"size = lambda: len(open({str(ticks)!r}).read())\nwhile not os.path.exists({str(ticks)!r}): time.sleep(0.02)"
    )
    watch = f"import os\n{count}\nbefore = size(); time.sleep(0.5); write(row={{'ticks': size() - before}})"
    bodies = {stub("a", timed=False): watch, stub("b"): watch, stub("c", timed=False): watch, stub("d"): watch}
    assert run_stubs(tmp_path, bodies, [sys.executable, "-c", prepare])
    ticked = {name: each["rows"][-1]["ticks"] for name, each in results_of(tmp_path).items()}
    assert ticked["a"] > 0 < ticked["c"]
    assert ticked["b"] == ticked["d"] == 0


def test_the_preparation_may_finish_its_last_file(tmp_path: Path) -> None:
    """A compiler that it has started finishes its file before the last part begins."""
    started, written = tmp_path / "started", tmp_path / "written"
    compile_slowly = f"touch {started}; sleep 1; echo whole > {written}"
    prepare = f"import subprocess; subprocess.run(['sh', '-c', {compile_slowly!r}])"
    wait = f"import os\nwhile not os.path.exists({str(started)!r}): time.sleep(0.02)"
    look = f"write(row={{'text': open({str(written)!r}).read()}})"
    assert run_stubs(tmp_path, {stub("a", timed=False): wait, stub("b"): look}, [sys.executable, "-c", prepare])
    assert results_of(tmp_path)["b"]["rows"][-1] == {"text": "whole\n"}


def test_without_a_gpu_an_error_explains_how_to_try_the_kit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert main(["--kit", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    [error] = capsys.readouterr().err.splitlines()
    assert "cuda is not available here" in error
    assert error.endswith("To try the kit without one: --device cpu --tiny.")
    assert not (tmp_path / "out").exists()


def test_a_missing_image_pack_is_an_error_before_anything_starts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--device", "cpu", "--kit", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "images.zip is missing, which these parts need: training. Make it with" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert environment.check_images(tmp_path, chosen(["step"]), tiny=False) is None


def make_wheel(folder: Path, name: str, tag: str = "py3-none-any", version: str = "1.0") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr(f"{name}.py", "WHERE = __file__\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")
    return file


@pytest.fixture
def requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Require one package that is installed and one that is not."""
    file = tmp_path / "requirements.txt"
    file.write_text("numpy\ntorch_friend_of_tests\n")
    monkeypatch.setattr(environment, "REQUIREMENTS", file)
    return file


@pytest.mark.usefixtures("requirements")
def test_only_missing_packages_are_unpacked(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "wheels", "torch_friend_of_tests")
    make_wheel(tmp_path / "wheels", "numpy", version="0.1")
    assert environment.missing_packages(tmp_path) == [wheel]
    environment.unpack([wheel], tmp_path)
    code = "import torch_friend_of_tests; print(torch_friend_of_tests.WHERE)"
    env = environment.environment(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(tmp_path / "packages"))
    assert environment.missing_packages(tmp_path / "nothing") == []


@pytest.mark.usefixtures("requirements")
def test_wheels_for_another_python_are_an_error_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_wheel(tmp_path / "wheels", "torch_friend_of_tests", "cp399-cp399-manylinux2014_x86_64")
    (tmp_path / "made_for.json").write_text('{"python": "3.99", "machine": "x86_64"}')
    assert main(["--device", "cpu", "--tiny", "--kit", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    [error] = capsys.readouterr().err.splitlines()
    assert "are for Python 3.99 on x86_64, but this is Python 3." in error
    assert f"make gpu-kit PYTHON_VERSION={environment.python_version()}" in error
    assert not (tmp_path / "out").exists()


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_kit_has_all_requirements_of_its_packages() -> None:
    """Their requirements as installed here, and the versions that they require of each other."""
    lines = [Requirement(line) for line in environment.REQUIREMENTS.read_text().splitlines() if line[0] != "#"]
    carried = {canonical(line.name): line for line in lines}
    for name, line in carried.items():
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            pythons = [{"extra": "", "python_version": f"3.{minor}"} for minor in (11, 12, 13)]
            if needed.marker is not None and not any(needed.marker.evaluate(each) for each in pythons):
                continue
            found = canonical(needed.name)
            if found in WITH_TORCH | NOT_IMPORTED:
                continue
            assert found in carried, f"{name} needs {text}"
            exact = [each for each in needed.specifier if each.operator == "=="]
            if exact:  # a pinned pair must be pinned together
                assert any(each.operator == "==" for each in line.specifier), f"{name} needs {text}"
            installed = importlib.metadata.version(found)
            assert carried[found].specifier.contains(installed), f"{carried[found]}, not {installed}"


def test_the_parts_and_their_tests_import_only_packages_of_the_kit() -> None:
    blocked = ("kedro", "kedro_datasets", "kedro_viz", "wandb", "plotly", "omegaconf", "torchmetrics", "mlxtend")
    modules = [f"benchmarks.gpu.parts.{part.name}" for part in PARTS] + ["benchmarks.gpu.part"]
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if tests_part.FIXTURE in path.read_text()]
    modules += [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files if "gpu_kit" not in path.name]
    assert len(files) > 8
    modules += ["benchmarks.training.peers"]
    code = f"import sys\nsys.modules.update(dict.fromkeys({blocked}))\nimport {', '.join(modules)}"
    env = environment.environment(Path("nothing"))
    subprocess.run([sys.executable, "-c", code], env=env, check=True, cwd=ROOT)


def test_the_parameters_equal_the_defaults_of_the_project(project: Project) -> None:
    expected = check_parameters(project.parameters(env="local"))
    for group, found in parameters().items():
        assert found == getattr(expected, group)
    changed = parameters({"optimizer": "sgd"}, optimizer__lr=0.5, training__batch_size=7)
    assert (changed["optimizer"].name, changed["optimizer"].lr, changed["training"].batch_size) == ("sgd", 0.5, 7)


def test_too_little_memory_for_a_batch_is_reported_in_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")

    monkeypatch.setattr(steps, "made", made)
    rows = list(steps.measure_candidate("ours", None, "fp32", (2, 4), CPU))  # type: ignore[arg-type]
    assert [row["batch"] for row in rows] == [2, 4]
    assert rows[0]["note"] == "too little memory: CUDA out of memory. Tried to allocate 20.00 GiB."
    assert "too little memory" in summary.STEP.markdown(rows)


def test_a_missing_package_affects_only_its_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.gpu.parts import peers  # noqa: PLC0415

    monkeypatch.setitem(sys.modules, "benchmarks.training.peers", None)
    rows = list(peers.measure(CPU))
    assert len(rows) == 5
    assert all(row["note"].startswith("ModuleNotFoundError") for row in rows)


@pytest.mark.parametrize(
    ("names", "cause"),
    [
        (["aten::copy_", "aten::_to_copy", "aten::to"], "casts"),
        (["aten::copy_", "aten::clone", "aten::contiguous"], "layout copies"),
        (["aten::copy_", "aten::native_group_norm"], "layout copies"),
        (["aten::copy_"], "other copies"),
        (["aten::mul_", "Optimizer.step#Adam.step"], "optimizer, clip and EMA"),
        (["aten::cudnn_convolution", "aten::_convolution"], "convolutions, forward"),
        (["aten::convolution_backward", "ConvolutionBackward0"], "convolutions, backward"),
        (["aten::_cudnn_attention_backward"], "attention"),
        (["aten::addmm", "aten::linear"], "matrix products"),
        (["aten::add"], "other elementwise operations"),
    ],
)
def test_every_operation_has_one_cause(names: list[str], cause: str) -> None:
    assert profile.cause_of(names) == cause


def test_all_convolutions_of_the_network_are_listed_by_shape() -> None:
    """Their operations equal torch's count, except for products, attention and the gradient of the input."""
    settings = Settings("cpu", False, None, Path())
    shapes = profile.shapes_of(settings)
    network = UNet(our_parameters(FULL.shape), 3)
    assert sum(shapes.values()) == sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()) == 65
    flops = 0.0
    for shape, uses in shapes.items():
        size = shape.size // shape.stride
        flops += 3 * uses * 2 * shape.channels_in * shape.channels_out * (shape.kernel * size) ** 2
    assert 0.85 < flops / flops_per_image(network, FULL.shape) < 1


def test_the_passes_of_a_convolution_return_its_gradients() -> None:
    shape = profile.Convolution(3, 4, 3, 2, 1, 8)
    x, weight = [], []
    for name, run, flops in profile.passes(shape, CPU):
        result = run()
        found = next(each for each in result if each is not None) if isinstance(result, tuple) else result
        (weight if name == "gradient of the weight" else x).append(found.shape)
        assert flops == 2 * 2 * 4 * 4 * 4 * 3 * 9
    assert x == [(2, 4, 4, 4), (2, 3, 8, 8)]
    assert weight == [(4, 3, 3, 3)]


def test_a_resumed_training_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    half = distributed.trained(CPU, TINY.resumed_steps // 2, None)
    assert half.images_seen == TINY.compared * TINY.resumed_steps // 2
    distributed.write(half, tmp_path / "half.pt")
    resumed = distributed.trained(CPU, TINY.resumed_steps, distributed.read(tmp_path / "half.pt"))
    alone = distributed.trained(CPU, TINY.resumed_steps, None)
    assert distributed.difference(resumed, alone) == 0
    assert all(torch.equal(resumed.network[name], alone.network[name]) for name in alone.network)


def test_the_tests_of_a_device_are_selected_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tests_part.command(Settings("cuda", False, None, Path()), tmp_path / "junit.xml")
    assert command[command.index("-k") + 1] == "cuda"
    assert {"tests/models/test_unet.py", "tests/training/test_step.py"} <= {
        str(Path(word).relative_to(ROOT)) for word in command if word.endswith(".py")
    }
    file = tmp_path / "test_some.py"
    file.write_text(
        "import pytest\n@pytest.mark.parametrize('device', ['cpu', 'cuda'])\n"
        "@pytest.mark.parametrize('number', [1, 2])\ndef test_it(device, number): assert number == 1, 'not one'\n"
    )
    run = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "-k", "cuda", str(file)]
    monkeypatch.setattr(tests_part, "command", lambda _, report: [*run, f"--junit-xml={report}"])
    counts, failed = tests_part.measure(CPU)
    assert counts == {"passed": 1, "failed": 1, "skipped": 0}
    assert failed["test"].endswith("test_it[2-cuda]")
    assert "not one" in failed["message"]
    monkeypatch.setattr(tests_part, "command", lambda *_: [*run, "-k", "nothing"])
    with pytest.raises(RuntimeError, match="no test"):
        list(tests_part.measure(CPU))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Write class folders below another folder: 8 red images, 4 blue ones."""
    rng = np.random.default_rng(0)
    for name, colour, count in (("red", (200, 0, 0), 8), ("blue", (0, 0, 200), 4)):
        (tmp_path / "images/train" / name).mkdir(parents=True)
        for number in range(count):
            pixels = (np.array(colour) + rng.integers(0, 50, (6, 6, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"images/train/{name}/{number}.png")
    return tmp_path / "images"


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_the_image_pack_keeps_pixels_and_balances_classes(kind: str, images: Path, tmp_path: Path) -> None:
    source = images if kind == "folder" else Path(shutil.make_archive(str(tmp_path / "archive"), kind, images))
    (scratch := tmp_path / "scratch").mkdir()
    assert kit.write_pack(tmp_path / "pack.zip", kit.subset(kit.read_images(source, scratch), 8)) == 8
    training, holdout = read_pack(tmp_path / "pack.zip")
    assert training.class_names == ("blue", "red")
    found = np.concatenate([training.images, holdout.images])
    labels = np.concatenate([training.labels, holdout.labels])
    assert np.bincount(labels).tolist() == [4, 4]
    originals = {np.asarray(Image.open(path)).tobytes() for path in images.rglob("*.png")}
    assert {image.tobytes() for image in found} < originals
    assert len(holdout) == 2


def test_without_images_cifar10_is_downloaded(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = serve_cifar10(server, monkeypatch)
    images = kit.read_images(None, tmp_path)
    assert len(list(kit.subset(images, 10**6))) == len(expected)
    image, name = next(kit.subset(images, 1))
    assert name in images.classes
    assert any(np.array_equal(np.asarray(image), each) for each in expected)


def test_the_kit_is_made_offline_from_local_wheels(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_wheel(tmp_path / "links", "torch_friend_of_tests", "cp312-cp312-manylinux_2_28_x86_64")
    (tmp_path / "requirements.txt").write_text("torch_friend_of_tests\n")
    monkeypatch.setattr(environment, "REQUIREMENTS", tmp_path / "requirements.txt")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    make_kit = partial(kit.main, ["--python-version", "3.12", "--machine", "x86_64", "--images", str(images), "--kit",
                              str(tmp_path / "kit")])  # fmt: skip
    assert make_kit() == 0
    assert "wheels for Python 3.12 on x86_64, 12 images" in capsys.readouterr().out
    assert json.loads((tmp_path / "kit/made_for.json").read_text()) == {"python": "3.12", "machine": "x86_64"}
    assert len(list((tmp_path / "kit/wheels").iterdir())) == 1
    monkeypatch.setattr(kit, "MOST_BYTES", 100)
    assert make_kit() == 2
    assert "more than 0: give fewer images" in capsys.readouterr().err
    (tmp_path / "requirements.txt").write_text("another_friend\n")
    assert make_kit() == 2
    assert "The wheels for Python 3.12 on x86_64 were not found. ERROR: No matching" in capsys.readouterr().err


def wrong_sources(folder: Path) -> Iterator[tuple[Path, str]]:
    (folder / "flat").mkdir()
    (folder / "text.tar").write_text("no archive")
    yield folder / "absent", "There is no"
    yield folder / "flat", "has no folders of images, one per class"
    yield folder / "text.tar", "cannot be unpacked"


def test_wrong_sources_of_images_are_named(tmp_path: Path) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    for source, message in wrong_sources(tmp_path):
        with pytest.raises(environment.NotReadyError, match=message):
            kit.read_images(source, scratch)


def test_made_images_have_classes_on_both_sides() -> None:
    training, holdout = made_images(8)
    for store in (training, holdout):
        assert set(store.labels.tolist()) == {0, 1, 2, 3}
        assert store.image_shape == (3, 8, 8)


FOUND = {
    "step": {
        "status": "done", "seconds": 41.2, "limit": 60.0, "reason": "", "date": "2026-01-02", "command": "make gpu",
        "machine": {"cpu": "A CPU", "cores": 16, "gpu": "A GPU"}, "versions": {"python": "3.12.9", "torch": "2.99"},
        "rows": [
            {"candidate": "ours", "precision": "bf16", "batch": 512, "ms": 23.456, "images_per_second": 21_827.6,
             "share": 0.4567, "teraflops": 345.6, "host_ms": None},
            {"candidate": "ours", "precision": "bf16", "batch": 1024, "note": "too little memory: no"},
        ],
    },
    "tests": {
        "status": "time limit", "seconds": 60.0, "limit": 60.0, "reason": "The limit of 60 s was over.",
        "date": "2026-01-02", "command": "make gpu", "rows": [],
    },
}  # fmt: skip


def test_the_page_has_every_row_with_machine_date_and_command() -> None:
    text = page.make_section(FOUND)
    assert "| ours | bf16 | 512 | 21,828 | 23.5 | 346 | 46% |  |" in text
    assert "| ours | bf16 | 1,024 |  |  |  |  | too little memory: no |" in text
    assert "Measured 2026-01-02 on A GPU; A CPU, 16 cores; python 3.12.9, torch 2.99; `make gpu`, 41 s." in text
    assert "Not complete (time limit): The limit of 60 s was over." in text
    assert "host ms" not in text
    assert page.NOTHING.strip() in page.make_section({})


def test_only_the_section_of_the_page_is_replaced() -> None:
    first = page.insert("# Page\n\ntext\n", page.make_section({}))
    second = page.insert(first, page.make_section(FOUND))
    assert second.startswith("# Page\n\ntext\n\n<!--")
    assert second.count(page.BEGIN) == 1
    assert page.NOTHING.strip() not in second
    assert page.find_section(second) == page.make_section(FOUND)
    assert page.find_section("# Page\n") == ""
    assert page.find_section((ROOT / "docs/benchmarks.md").read_text())


@pytest.mark.slow
def test_the_command_runs_a_part_in_its_process(tmp_path: Path) -> None:
    """CI runs all parts with this command."""
    options = ["--device", "cpu", "--tiny", "--parts", "machine", "--kit", str(tmp_path), "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu", *options], cwd=ROOT, check=False)
    assert done.returncode == 0, (tmp_path / "log.txt").read_text()
    found = results_of(tmp_path)
    assert list(found) == ["machine"]
    assert found["machine"]["status"] == "done"


@pytest.mark.slow
def test_the_parts_that_take_seconds_run_on_a_cpu(tmp_path: Path) -> None:
    """CI runs the other parts: the tests of the device, torchrun, and compilers."""
    settings, rows = Settings("cpu", True, None, tmp_path), dict[str, list[dict[str, Any]]]()
    for name in (part.name for part in PARTS if part.name not in {"tests", "distributed", "compiled"}):
        lines = tmp_path / f"{name}.jsonl"
        assert run_part(name, settings, lines) == 0, lines.read_text()
        rows[name] = [line["row"] for line in read_lines(lines) if "row" in line]
        assert rows[name]
    assert [row["batch"] for row in rows["step"]] == list(TINY.batches)
    assert sum(row["share"] for row in rows["profile"] if "cause" in row) == pytest.approx(1)
    assert len(rows["peers"]) == 5
    assert not [row for row in rows["peers"] if "note" in row]
    assert [row["scored"].split(",")[0] for row in rows["training"] if "scored" in row] == [
        "samples",
        "training images",
    ]
    with Image.open(tmp_path / "samples.png") as grid:
        assert grid.width > 200
