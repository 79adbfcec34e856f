"""The commands and files of docs/distributed.md fit torchrun, SLURM and Kubernetes."""

import re
import shlex
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml
from torch.distributed.run import get_args_parser

from ddpm_kedro.hooks.distributed import COMMAND
from tests.conftest import ROOT
from tests.documentation import commands, messages

MANIFESTS = list(yaml.safe_load_all((ROOT / "docs/kubernetes.yaml").read_text()))
SLURM = ROOT / "docs/slurm.sh"
SLURM_TORCHRUN = SLURM.read_text().split("srun ")[1].split("\nstatus")[0].replace("\\\n", " ")


def pods() -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in MANIFESTS if each["kind"] == "Job"}


def training_command() -> list[str]:
    [container] = pods()["ddpm-kedro"]["containers"]
    return [*container["command"][2:], *container["args"]]


@pytest.mark.parametrize(
    "command",
    [
        *commands("torchrun "),
        COMMAND,
        SLURM_TORCHRUN.replace("$", "").replace('"@"', ""),
        shlex.join(training_command()),
    ],
)
def test_torchrun_parses_each_command(command: str) -> None:
    options = get_args_parser().parse_args(shlex.split(command)[1:])
    assert options.module
    assert options.training_script == "ddpm_kedro"
    assert options.training_script_args[:2] == ["--pipelines", "model_training"]
    if options.max_restarts:
        assert options.standalone or options.rdzv_backend == "c10d"  # without it, processes would wait for dead ones


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda each: f"{each['kind']} {each['metadata']['name']}")
def test_manifests_are_valid(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.31", strict=True)


def test_invalid_manifests_are_refused() -> None:
    wrong = yaml.safe_load((ROOT / "docs/kubernetes.yaml").read_text().split("\n---\n")[3])
    wrong["spec"]["completionsMode"] = wrong["spec"].pop("completionMode")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.31", strict=True)


def test_pods_meet_at_the_address_of_the_service() -> None:
    by_kind = {each["kind"]: each for each in MANIFESTS if each["metadata"]["labels"]["step"] == "training"}
    service, job = by_kind["Service"], by_kind["Job"]
    options = get_args_parser().parse_args(training_command()[1:])
    host, port = options.rdzv_endpoint.split(":")
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert int(port) == service["spec"]["ports"][0]["port"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert int(options.nnodes) == job["spec"]["completions"] == job["spec"]["parallelism"]
    gpus = job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    assert options.nproc_per_node == gpus


def test_restarts_do_not_reuse_addresses_of_old_processes() -> None:
    [container] = pods()["ddpm-kedro"]["containers"]
    assert {"name": "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "value": "1"} in container["env"]
    assert "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in SLURM.read_text()
    assert "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in (ROOT / "docs/distributed.md").read_text()


def test_batch_script_is_a_shell_script() -> None:
    subprocess.run(["bash", "-n", str(SLURM)], check=True, capture_output=True)


def test_batch_script_waits_for_a_message_that_exists() -> None:
    [message] = re.findall(r'grep -qs "(.+?)"', SLURM.read_text())
    assert message in messages()
