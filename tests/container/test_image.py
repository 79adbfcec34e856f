"""The content of the container image, and its runs. Needs Docker: ``make image-test``."""

import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import ddpm_kedro
from tests.conftest import Project
from tests.container.engine import (
    BUILD_FLAGS,
    GROUP,
    IMAGE,
    LOCKED,
    ROOT,
    USER,
    base_image,
    compose_flags,
    docker,
    free_port,
    get,
    inspect,
    logs,
    python,
    run,
    shell,
    started,
    wait_for,
)

pytestmark = pytest.mark.container
MB = 1e6
TINY = "training.num_images=64,training.preview_images=0,sampling.num_images=10"
ENDLESS = "training.num_images=1_000_000,training.report_interval=400,training.checkpoint_interval=400"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty data folder that belongs to the user of the container."""
    folder = tmp_path / "data"
    folder.mkdir()
    if folder.stat().st_uid != USER:
        shutil.chown(folder, USER, GROUP)
    return folder


def failed(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a run ended with one clear message and no traceback."""
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert "Traceback" not in output
    [message] = [line for line in output.splitlines() if line.startswith("Error: ")]
    for word in words:
        assert word in message


class TestContent:
    def test_the_image_has_labels_of_version_and_revision(self) -> None:
        labels = inspect(IMAGE)["Config"]["Labels"]
        assert labels["org.opencontainers.image.version"] == ddpm_kedro.__version__
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", labels["org.opencontainers.image.revision"])

    def test_the_image_is_at_most_300_mb_larger_than_torch(self, capsys: pytest.CaptureFixture[str]) -> None:
        """At most 300 MB more than the base image and an environment that holds torch and torchvision alone.

        The size of that environment is what pip noted of each file that it installed, so files that the image
        dropped later count there.
        """
        program = """
import csv, importlib.metadata as metadata, re
from packaging.requirements import Requirement
names, files = ["torch", "torchvision"], {}
for name in names:
    distribution = metadata.distribution(name)
    for requirement in map(Requirement, distribution.requires or []):
        extras = [{"extra": extra} for extra in requirement.extras] or [{"extra": ""}]
        wanted = requirement.marker is None or any(map(requirement.marker.evaluate, extras))
        if requirement.name not in names and wanted:
            names.append(requirement.name)
    if name == "cuda-toolkit":
        names += [found for found in (d.name for d in metadata.distributions())
                  if found.startswith("nvidia-") and found not in names]
    for path, _, size in csv.reader(distribution.read_text("RECORD").splitlines()):
        located = distribution.locate_file(path)
        files[str(located)] = int(size or (located.stat().st_size if located.exists() else 0))
print(sum(files.values()))
"""
        docker("pull", base_image(), check=False)  # an engine keeps the base image, but not under its name
        image, base, torch_alone = inspect(IMAGE)["Size"], inspect(base_image())["Size"], int(python(program))
        rest = image - base - torch_alone
        with capsys.disabled():
            sizes = {"image": image, "base": base, "torch environment": torch_alone, "the rest": rest}
            print("\n" + ", ".join(f"{name} {size / MB:,.0f} MB" for name, size in sizes.items()))
        assert torch_alone > 0.5 * image
        assert rest < 300 * MB

    def test_the_image_has_no_compiler_no_pip_and_no_tests(self) -> None:
        names = "cc c++ gcc g++ clang nvcc protoc make pip pip3 git pytest ruff mypy"
        script = f"for name in {names}; do command -v $name; done; find /opt/venv -name '*.a' -o -type d -name tests"
        assert shell(script) == []
        program = "import importlib.util as u; print([n for n in {} if u.find_spec(n)])"
        assert python(program.format(["pytest", "hypothesis", "diffusers", "mypy", "pip"])) == "[]"

    def test_every_library_can_be_imported_after_trimming(self) -> None:
        names = (
            "torch torch._dynamo torch._inductor torchvision torchvision.datasets triton scipy.io scipy.stats "
            "sklearn.metrics pandas numpy.testing matplotlib.pyplot plotly.graph_objects networkx sympy "
            "kedro_viz.server mlxtend.data safetensors.torch PIL.Image"
        )
        program = "import importlib, warnings; warnings.simplefilter('ignore'); "
        assert python(program + f"[importlib.import_module(name) for name in '{names}'.split()]") == ""

    def test_the_image_has_nothing_of_the_build_secrets(self) -> None:
        """No address of a mirror, no certificate: not in the history, not in the settings, not in a file."""
        paths = [Path(flag.split("src=")[1]) for flag in BUILD_FLAGS if "src=" in flag]
        text = "\n".join(path.read_text() for path in paths)
        public = {"deb.debian.org", "archive.ubuntu.com", "security.ubuntu.com", "pypi.org", "files.pythonhosted.org"}
        hosts = set(re.findall(r"https?://([^/\s\"]+)", text)) - public
        known = docker("history", "--no-trunc", IMAGE).stdout + str(inspect(IMAGE))
        assert not [host for host in hosts if host in known]
        assert shell("find /run/host /run/secrets -type f -size +0 2>/dev/null") == []
        search = 'grep -rlF "$@" /app /etc /opt /root /run /tmp /usr /var'
        assert "/app/pyproject.toml" in shell(search, "-e", "ddpm_kedro.__version__")  # it finds what is there
        if hosts:
            assert shell(search, *(part for host in hosts for part in ("-e", f"//{host}"))) == []

    def test_the_image_has_no_file_of_this_folder_but_the_project(self) -> None:
        tracked = subprocess.run(["git", "ls-files", "conf"], cwd=ROOT, capture_output=True, text=True, check=True)
        conf = {f"./{path}" for path in tracked.stdout.split() if not path.startswith("conf/local/")}
        assert set(shell("cd /app && find . -type f")) == conf | {"./entrypoint", "./pyproject.toml"}


def seconds_to_first_report(folder: Path) -> float:
    """Return how long the run takes outside of a container, from its start to its first report."""
    project, start = Project(folder / "outside"), time.monotonic()
    command = [sys.executable, "-m", "ddpm_kedro", "--env", "smoke"]
    with subprocess.Popen(command, cwd=project.folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if "32 of 64 images" in line)
        seconds = time.monotonic() - start
        process.kill()
    return seconds


class TestRun:
    def test_the_whole_job_runs_locked_in(self, data: Path, tmp_path: Path) -> None:
        """No network, no writable root, no capability, an unknown user; all that is written belongs to that user.

        A container whose caches cannot be written starts slowly. On a busy machine the same run outside is the measure.
        """
        start = time.monotonic()
        with started(data, "run", "--env", "smoke") as name:
            wait_for(lambda: "32 of 64 images" in logs(name))
            first_report = time.monotonic() - start
            assert docker("wait", name).stdout.strip() == "0"
            output = logs(name)
            assert inspect(name)["HostConfig"]["ReadonlyRootfs"]
        assert first_report < 20 or first_report < 4 * seconds_to_first_report(tmp_path)
        warned = "The feature extractor is weak"  # in so short a run
        expected = rf"\d\d:\d\d:\d\dZ (?!WARNING(?!: {warned})|ERROR)"
        assert [line for line in output.splitlines() if not re.match(expected, line)] == []
        [line] = [line for line in output.splitlines() if "GPU" in line]
        assert "start the container with --gpus all" in line
        written = [path for path in data.rglob("*") if path.is_file()]
        assert {(path.stat().st_uid, path.stat().st_gid) for path in data.rglob("*")} == {(USER, GROUP)}
        assert data / "smoke/07_model_output/samples.png" in written
        assert data / ".viz/kedro_pipeline_events.json" in written

    def test_without_flags_the_image_runs_as_its_own_user(self) -> None:
        done = docker("run", "--rm", "--network=none", IMAGE, "run", "--env", "smoke", check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert inspect(IMAGE)["Config"]["User"] == "1000:1000"

    def test_other_commands_of_kedro_run(self, data: Path) -> None:
        assert "sampling" in run(data, "registry", "list").stdout

    def test_init_is_process_one_and_nothing_runs_as_root(self, data: Path) -> None:
        with started(data, "run", "--env", "smoke", "--params", ENDLESS) as name:
            wait_for(lambda: " trains on " in logs(name))
            script = (
                "cat /proc/1/comm; cat /proc/[0-9]*/status | grep -E '^(Uid|Gid|CapEff|CapBnd|NoNewPrivs)' | sort -u"
            )
            first, *status = docker("exec", name, "sh", "-c", script).stdout.splitlines()
        assert first == "tini"
        assert [line.split() for line in status] == [
            ["CapBnd:", "0" * 16],
            ["CapEff:", "0" * 16],
            ["Gid:", *[str(GROUP)] * 4],
            ["NoNewPrivs:", "1"],
            ["Uid:", *[str(USER)] * 4],
        ]

    def test_only_data_and_tmp_can_be_written(self, data: Path) -> None:
        program = """
import os
ways = [path for path, folders, _ in os.walk("/") if not path.startswith(("/proc", "/sys", "/dev"))
        and os.access(path, os.W_OK)]
print(sorted({"/".join(path.split("/")[:3]) for path in ways}))
"""
        assert python(program, f"--volume={data}:/app/data") == "['/app/data', '/tmp']"

    def test_caches_and_settings_can_be_written(self) -> None:
        program = """
import getpass, os, matplotlib
from torch._inductor.runtime.cache_dir_utils import cache_dir
for folder in (matplotlib.get_configdir(), matplotlib.get_cachedir(), cache_dir(), os.environ["HOME"]):
    os.makedirs(folder, exist_ok=True)
    assert os.access(folder, os.W_OK), folder
print(getpass.getuser(), os.environ["WANDB_DIR"])
"""
        assert python(program) == "ddpm /app/data"

    def test_mounted_personal_settings_are_used(self, data: Path, tmp_path: Path) -> None:
        local = tmp_path / "local"
        local.mkdir()
        (local / "parameters.yml").write_text("sampling: {num_images: 3}\ntraining: {num_images: 32}\n")
        tmp_path.chmod(0o755)
        done = run(data, flags=[*LOCKED, f"--volume={local}:/app/conf/local:ro"])
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(list((data / "07_model_output/samples").glob("*.png"))) == 3


class TestStop:
    def test_docker_stop_keeps_a_checkpoint_from_which_the_same_command_resumes(self, data: Path) -> None:
        command = ["run", "--env", "smoke", "--params", ENDLESS]
        with started(data, *command) as name:
            wait_for(lambda: "400 of 1,000,000 images" in logs(name))
            docker("stop", name)
            assert inspect(name)["State"]["ExitCode"] == 143  # 137 if Docker had to kill it after its ten seconds
            assert "the same command resumes from it" in logs(name)
        checkpoint = torch.load(data / "smoke/06_models/checkpoint.pt", weights_only=True)
        assert checkpoint["images_seen"] >= 400
        with started(data, *command) as name:
            wait_for(lambda: f"resumes after {checkpoint['images_seen']:,} images" in logs(name))
            wait_for(lambda: " of 1,000,000 images, loss" in logs(name))
            first = re.findall(r"([\d,]+) of 1,000,000 images", logs(name))[0]
            assert int(first.replace(",", "")) > checkpoint["images_seen"]

    def test_a_stop_before_training_ends_the_container(self, data: Path) -> None:
        with started(data, "run", "--env", "smoke", "--params", ENDLESS) as name:
            wait_for(lambda: inspect(name)["State"]["Running"])
            docker("stop", name)
            assert inspect(name)["State"]["ExitCode"] == 143


class TestViz:
    def test_the_pipeline_view_answers(self, data: Path) -> None:
        assert run(data, "run", "--env", "smoke").returncode == 0
        port = free_port()
        flags = [*compose_flags("viz"), f"--user={USER}:{GROUP}", "--network=host"]
        command = ["viz", "run", "--no-browser", "--host", "127.0.0.1", "--port", str(port)]
        with started(data, *command, flags=flags, mode="ro") as name:
            wait_for(lambda: "train_model" in get(f"http://127.0.0.1:{port}/api/main"))
            assert "<title>Kedro-Viz</title>" in get(f"http://127.0.0.1:{port}/")
            assert '"success"' in get(f"http://127.0.0.1:{port}/api/run-status").lower()
            docker("stop", name)
            assert inspect(name)["State"]["ExitCode"] != 137  # Docker did not have to kill it


class TestMistakes:
    def test_a_read_only_data_folder_is_named(self, data: Path) -> None:
        done = docker("run", "--rm", *LOCKED, f"--volume={data}:/app/data:ro", IMAGE, check=False)
        failed(done, "The data folder /app/data cannot be written: Read-only file system")

    def test_a_data_folder_of_another_user_is_named(self, data: Path) -> None:
        flags = [f"--user={USER + 1}" if flag.startswith("--user") else flag for flag in LOCKED]
        whose = f"It belongs to user {USER}, and this is user {USER + 1}"
        failed(run(data, "run", flags=flags), "Permission denied", whose, '--user "$(id -u):$(id -g)"')

    def test_too_little_shared_memory_is_named(self, data: Path) -> None:
        flags = [flag for flag in LOCKED if not flag.startswith("--shm-size")]
        parameters = "training.loader_workers=2,training.batch_size=400"
        arguments = ["run", "--env", "smoke", "--params", parameters]
        failed(run(data, *arguments, flags=[*flags, "--shm-size=1m"]), "/dev/shm has only 1 MiB free", "--shm-size=2g")
        assert run(data, *arguments).returncode == 0  # with the memory that compose.yaml gives

    def test_an_unknown_pipeline_is_named(self, data: Path) -> None:
        failed(run(data, "run", "--pipelines", "samplin"), "Unknown pipeline 'samplin'. Did you mean 'sampling'")

    def test_a_configuration_that_hides_the_base_is_named(self, data: Path, tmp_path: Path) -> None:
        conf = tmp_path / "conf"
        (conf / "local").mkdir(parents=True)
        tmp_path.chmod(0o755)
        done = run(data, flags=[*LOCKED, f"--volume={conf}:/app/conf:ro"])
        failed(done, "/app/conf/base", "mount) yours in conf/local, not over conf")


def test_the_commands_of_the_page_run(data: Path, tmp_path: Path) -> None:
    """Run the commands as written, but without GPU and network, and with a short training in conf/local."""
    local = tmp_path / "local"
    local.mkdir()
    (local / "parameters.yml").write_text("sampling: {num_images: 3}\ntraining: {num_images: 32}\n")
    tmp_path.chmod(0o755)
    commands = re.findall(r"^docker run .*$", (ROOT / "docs/container.md").read_text(), re.MULTILINE)
    commands = [command for command in commands if "viz run" not in command]  # published ports need a bridge
    assert len(commands) >= 5
    for command in commands:
        short = "" if "conf/local" in command else f"-v {local}:/app/conf/local:ro "
        words = shlex.split(
            command.replace("--gpus all ", "--network none ")
            .replace("$(id -u):$(id -g)", f"{USER}:{GROUP}")
            .replace("$PWD/data", str(data))
            .replace("$PWD/conf/local", str(local))
            .replace(" ddpm-kedro", f" {short}{IMAGE}")
        )
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((data / "07_model_output/samples").glob("*.png"))) == 3


def seconds_to_build(context: Path) -> float:
    start = time.monotonic()
    docker("build", *BUILD_FLAGS, "--tag", f"{IMAGE}:changed", str(context))
    return time.monotonic() - start


def test_a_change_of_code_rebuilds_the_last_layers_in_seconds(tmp_path: Path) -> None:
    context = tmp_path / "context"
    shutil.copytree(ROOT, context, ignore=shutil.ignore_patterns(".git", ".venv*", "data", ".viz", ".*_cache"))
    for path in ("src/ddpm_kedro/__init__.py", "pyproject.toml"):
        with (context / path).open("a") as file:
            file.write(f"# changed at {time.time()}\n")
    (context / "conf/base/credentials.yml").write_text("key: secret")
    seconds = seconds_to_build(context)
    layers, changed = (inspect(name)["RootFS"]["Layers"] for name in (IMAGE, f"{IMAGE}:changed"))
    secret = docker("run", "--rm", "--entrypoint=sh", f"{IMAGE}:changed", "-c", "ls conf/base").stdout
    assert seconds < 15 or seconds < 10 * seconds_to_build(context)  # the second time nothing has changed
    docker("rmi", f"{IMAGE}:changed")
    assert changed[:-3] == layers[:-3]  # the dependencies are not installed again
    assert "credentials" not in secret


def test_compose_accepts_its_file() -> None:
    command = ["docker", "compose"] if docker("compose", "version", check=False).returncode == 0 else ["docker-compose"]
    if not shutil.which(command[0]):
        pytest.skip("compose.yaml was not checked, since Docker Compose is missing: install docker-compose-plugin")
    arguments = ["--file", str(ROOT / "compose.yaml"), "--profile", "cpu", "config"]
    rendered = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True).stdout
    assert set(yaml.safe_load(rendered)["services"]) == {"train", "train-cpu", "viz"}
