"""No output and no file of a run contains the secrets of a URL."""

import sys
from pathlib import Path

import pytest

from tests.archives import Server
from tests.conftest import Project
from tests.ingestion.test_image_files import members
from tests.integration.test_whole_job import ok
from tests.integration.test_your_images import FILES
from tests.test_cli import kedro, printed

SECRETS = (b"janedoe", b"pa55word", b"s3cret", b"t0ken")


def url_of(server: Server, query: str = "t0ken=s3cret&token=t0ken&id=1") -> str:
    members(server[1] / "pictures.zip", FILES)
    return f"{server[0].replace('://', '://janedoe:pa55word@')}/pictures.zip?{query}"


def check_no_secret(folder: Path, *texts: str) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    leaks = [(secret, path) for path in files for secret in SECRETS if secret in path.read_bytes() + bytes(path)]
    assert not leaks
    assert not [secret for secret in SECRETS for text in texts if secret.decode() in text]


@pytest.mark.slow
def test_a_run_on_images_from_a_url_writes_none_of_its_secrets(
    project: Project, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    chosen = f"use.dataset=archive,dataset.path={url_of(server)},images.size=16,tracking.mode=offline"
    monkeypatch.setattr(sys, "argv", ["kedro", "run", "--params", chosen])  # which W&B stores
    first = ok(project.kedro_run("--pipelines", "data_ingestion,model_training", "--params", chosen))
    assert list(project.data.rglob("*.wandb"))
    check_no_secret(project.folder, first.output, caplog.text)


@pytest.mark.slow
def test_a_sweep_on_images_from_a_url_writes_none_of_its_secrets(
    project: Project, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = f"use.dataset=archive,dataset.path={url_of(server)},images.size=16"
    swept = kedro(project, "sweep", "optimizer.lr=1e-3,2e-3", "--params", chosen, "--env", "smoke")
    assert "To repeat the best trial: kedro run" in printed(swept)
    check_no_secret(project.folder, swept.output, caplog.text)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{url}-gone", "pictures.zip?… was not found: the server returns 404"),
        ("htps://janedoe:pa55word@127.0.0.1/pictures.zip?token=s3cret", "no file system is known for htps://"),
        ("http://janedoe:pa55word@[1:2/pictures.zip?token=s3cret", "cannot be requested"),
        ("http://janedoe:pa55word@127.0.0.1:9/pictures.zip?token=s3cret", "cannot be reached"),
        ("memory://janedoe:pa55word@bucket/pictures.zip?token=s3cret", "cannot be read"),
    ],
)
def test_a_url_that_cannot_be_downloaded_is_named_without_its_secrets(
    path: str, message: str, project: Project, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpm_kedro.ingestion.transferring.BACKOFF", 0.0)
    path = path.format(url=url_of(server)).replace("zip?t0ken=s3cret&token=t0ken&id=1-gone", "gone.zip?token=s3cret")
    chosen = f"use.dataset=archive,dataset.path={path}"
    result = project.kedro_run("--pipelines", "data_ingestion", "--params", chosen)
    assert result.exit_code == 1
    assert message.replace("pictures.zip?…", "") in result.output
    assert "Traceback" not in result.output
    check_no_secret(project.folder, result.output)
