"""Docker commands for the tests of the image."""

import json
import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
IMAGE = os.environ.get("IMAGE", "ddpm-kedro")
BUILD_FLAGS = os.environ.get("DOCKER_BUILD_FLAGS", "").split()
# Only root can give a folder to another user; other users run the tests with their own id.
USER, GROUP = (12345, 12345) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def docker(*arguments: str, check: bool = True, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=check, timeout=timeout)


def inspect(what: str) -> dict[str, Any]:
    return json.loads(docker("inspect", what).stdout)[0]


def base_image() -> str:
    """Return the base image of IMAGE."""
    for flag in BUILD_FLAGS:
        if flag.startswith("BASE_IMAGE="):
            return flag.removeprefix("BASE_IMAGE=")
    [default] = re.findall(r"^ARG BASE_IMAGE=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return default


def compose_flags(service: str) -> list[str]:
    """Return the settings of a service as flags of ``docker run``, without folders, network and user."""
    settings = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"][service]
    flags = ["--read-only"] if settings["read_only"] else []
    flags += [f"--tmpfs={path}" for path in settings["tmpfs"]]
    flags += [f"--cap-drop={name}" for name in settings["cap_drop"]]
    flags += [f"--security-opt={option}" for option in settings["security_opt"]]
    flags += [f"--shm-size={settings['shm_size']}"] if "shm_size" in settings else []
    flags += [f"--env={variable}" for variable in settings.get("environment", [])]
    return flags


LOCKED = [*compose_flags("train-cpu"), f"--user={USER}:{GROUP}", "--network=none"]


def run(data: Path, *arguments: str, flags: list[str] = LOCKED) -> subprocess.CompletedProcess[str]:
    """Run Kedro in a container with the data folder mounted."""
    return docker("run", "--rm", *flags, f"--volume={data}:/app/data", IMAGE, *arguments, check=False)


def shell(script: str, *arguments: str) -> list[str]:
    """Run a script in the image as root, to its end, and return the lines that it prints."""
    command = ["--user=0", "--network=none", "--entrypoint=sh", IMAGE, "-c", f"{script}\necho the end", "sh"]
    *lines, last = docker("run", "--rm", *command, *arguments).stdout.splitlines()
    assert last == "the end"
    return lines


def python(program: str, *flags: str) -> str:
    """Run a Python program in the locked container, and return its output."""
    done = docker("run", "--rm", *LOCKED, "--entrypoint=python", *flags, IMAGE, "-c", program)
    assert done.stderr == ""
    return done.stdout.strip()


def wait_for(happened: Callable[[], bool], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"did not happen within {seconds} seconds"
        time.sleep(0.1)


def free_port() -> int:
    """Return a free port below the range that the system assigns: Kedro-Viz refuses some ports of that range."""
    for port in range(4141, 32768):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("no free port")


def get(url: str) -> str:
    """Return a page, or an empty text if no server answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def logs(name: str) -> str:
    return docker("logs", name).stdout


@contextmanager
def started(data: Path, *arguments: str, flags: list[str] = LOCKED, mode: str = "rw") -> Iterator[str]:
    """Start a container in the background, yield its id, and remove it."""
    name = docker("run", "--detach", *flags, f"--volume={data}:/app/data:{mode}", IMAGE, *arguments).stdout.strip()
    try:
        yield name
    except BaseException:
        print(docker("logs", name).stdout, docker("logs", name).stderr)  # pytest shows it
        raise
    finally:
        docker("rm", "--force", name)
