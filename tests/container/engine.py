"""Docker, as the tests of the image use it."""

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
# Only root can give a folder to somebody else; a person's own checks run with the own id.
USER, GROUP = (12345, 12345) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def docker(*arguments: str, check: bool = True, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=check, timeout=timeout)


def inspect(what: str) -> dict[str, Any]:
    return json.loads(docker("inspect", what).stdout)[0]


def base_image() -> str:
    """The image that IMAGE was built from."""
    for flag in BUILD_FLAGS:
        if flag.startswith("BASE_IMAGE="):
            return flag.removeprefix("BASE_IMAGE=")
    [default] = re.findall(r"^ARG BASE_IMAGE=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return default


def compose_flags(service: str) -> list[str]:
    """How compose.yaml runs a service, as flags of ``docker run``; folders, network and user are the test's."""
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
    """``docker run`` with the data folder mounted; what follows the image's name are kedro's arguments."""
    return docker("run", "--rm", *flags, f"--volume={data}:/app/data", IMAGE, *arguments, check=False)


def shell(script: str, *arguments: str) -> list[str]:
    """The lines that a script prints in the image, as root; it must run to its end."""
    command = ["--user=0", "--network=none", "--entrypoint=sh", IMAGE, "-c", f"{script}\necho the end", "sh"]
    *lines, last = docker("run", "--rm", *command, *arguments).stdout.splitlines()
    assert last == "the end"
    return lines


def python(program: str, *flags: str) -> str:
    """What a Python program prints in the locked container."""
    done = docker("run", "--rm", *LOCKED, "--entrypoint=python", *flags, IMAGE, "-c", program)
    assert done.stderr == ""
    return done.stdout.strip()


def wait_for(happened: Callable[[], bool], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"did not happen within {seconds} seconds"
        time.sleep(0.1)


def free_port() -> int:
    """Below those that the system hands out, some of which Kedro-Viz refuses."""
    for port in range(4141, 32768):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("no free port")


def get(url: str) -> str:
    """A page, or nothing where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def logs(name: str) -> str:
    return docker("logs", name).stdout


@contextmanager
def started(data: Path, *arguments: str, flags: list[str] = LOCKED, mode: str = "rw") -> Iterator[str]:
    """A container in the background, gone afterwards; gives its id."""
    name = docker("run", "--detach", *flags, f"--volume={data}:/app/data:{mode}", IMAGE, *arguments).stdout.strip()
    try:
        yield name
    except BaseException:
        print(docker("logs", name).stdout, docker("logs", name).stderr)  # pytest shows it
        raise
    finally:
        docker("rm", "--force", name)
