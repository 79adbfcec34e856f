"""Check Dockerfile and compose.yaml without Docker."""

import re
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from tests.container.engine import ROOT, compose_flags

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_base_image_has_the_cuda_version_of_torch() -> None:
    [base] = re.findall(r"^ARG BASE_IMAGE=nvidia/cuda:([\d.]+)-base-ubuntu24.04$", DOCKERFILE, re.MULTILINE)
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    [toolkit] = [pin.specifier for pin in pins if pin.name == "cuda-toolkit"]
    assert base in toolkit or f"{base}.0" in toolkit
    assert str(toolkit).removeprefix("==").startswith(base)


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_locked(service: str) -> None:
    assert compose_flags(service)[:4] == [
        "--read-only",
        "--tmpfs=/tmp",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges:true",
    ]
    assert SERVICES[service]["user"] == "${DDPM_USER:-1000:1000}"
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service].get("ports", []))


def test_each_service_has_its_device_profile_volumes_and_ports() -> None:
    [device] = SERVICES["train"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert "deploy" not in SERVICES["train-cpu"]
    assert SERVICES["train-cpu"]["profiles"] == ["cpu"]
    for name in ("train", "train-cpu"):
        assert SERVICES[name]["restart"].startswith("on-failure")
        assert SERVICES[name]["shm_size"] == "2gb"
        assert "./data:/app/data" in SERVICES[name]["volumes"]
    assert "./data:/app/data:ro" in SERVICES["viz"]["volumes"]
    [port] = SERVICES["viz"]["ports"]
    assert port.split(":")[-1] in SERVICES["viz"]["command"].split()


def test_exactly_the_steps_that_download_take_mirrors_as_optional_secrets() -> None:
    steps = re.findall(r"^RUN (.*?)(?<!\\)\n", DOCKERFILE, re.MULTILINE | re.DOTALL)
    secrets = [set(re.findall(r"--mount=type=secret,id=(\w+),target=/run/host/", step)) for step in steps]
    downloads = [
        {"apt_sources", "apt_conf"} if "/run/host/apt-install " in step
        else {"pip_conf", "ca"} if re.search(r"\binstall\b", step) and "--no-index" not in step
        else set()
        for step in steps
    ]  # fmt: skip
    assert secrets == downloads
    assert sum(map(bool, downloads)) == 4
    assert "required=true" not in DOCKERFILE
