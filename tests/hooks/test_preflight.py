"""What is wrong with a run is found before its first node."""

from tests.conftest import Project
from tests.integration.test_whole_job import failed


def test_missing_inception_weights_end_a_run_before_the_training(project: Project) -> None:
    changes = "evaluation.extractor=inception,evaluation.inception_weights=nowhere.pth"
    failed(project.kedro_run("--params", changes), "There are no Inception weights at nowhere.pth.")
    assert not (project.data / "05_model_input").exists()
