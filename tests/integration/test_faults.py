"""After a write that fails or a kill during it, the same command mends the results. A short form of ``make soak``."""

import pytest
from safetensors import SafetensorError

from ddpm_kedro.models import weights
from tests.conftest import ROOT, Project
from tests.processes import run

TINY = "training.num_images=16,training.report_interval=8,training.preview_images=0"
TRAINING = ("--pipelines", "data_ingestion,model_training", "--params", TINY)


def test_a_full_disk_during_the_export_is_one_message_and_leaves_no_partial_model(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(weights, "save_file", full)
        result = project.kedro_run(*TRAINING)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    *_, message = result.output.split("Error: ")
    assert "data/smoke/06_models/model cannot be read or written: " in message
    assert "No space left on device (os error 28). The files on the disk are complete: free some space" in message
    assert sorted(path.name for path in (project.data / "06_models").iterdir()) == [
        "best_checkpoint.pt",
        "checkpoint.pt",
    ]
    assert not list(project.data.glob("runs/*/parameters.json"))
    caplog.clear()
    result = project.kedro_run(*TRAINING)
    assert result.exit_code == 0, result.output
    assert "of 16 images, loss" not in caplog.text
    assert (project.data / "06_models/model/model.safetensors").exists()
    assert list(project.data.glob("runs/*/parameters.json"))


@pytest.mark.slow
def test_the_same_command_mends_failed_writes() -> None:
    done = run(ROOT, "tests.faults", "--every", "190", "--first", "40")
    assert done.returncode == 0, done.stdout[-7000:]
    counts = {
        line.split(": ")[0]: int(line.split()[-2]) for line in done.stdout.splitlines() if line.endswith("writes")
    }
    assert counts.keys() == {"disk full", "permission", "cross-device", "kill"}
    assert counts["kill"] > 200
    assert counts["cross-device"] == 3  # both checkpoints of the earlier run, and what is kept of this one
