"""Paths that are not local: real files elsewhere, or a refusal in a sentence."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from kedro.io import DataCatalog, DatasetError
from kedro_datasets.text import TextDataset
from PIL import Image

from ddpm_kedro.datasets.base import FileDataset, LocalDataset, local_copy
from ddpm_kedro.datasets.checkpoint import CheckpointDataset
from ddpm_kedro.datasets.figure import FigureDataset, FigureFolderDataset, OptionalFigureDataset
from ddpm_kedro.datasets.history import HistoryDataset
from ddpm_kedro.datasets.image_store import ImageStoreDataset
from ddpm_kedro.datasets.model import ModelDataset
from ddpm_kedro.datasets.samples import SamplesDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion.given import GivenImage
from ddpm_kedro.sampling.samples import Samples
from tests.conftest import MADE_BY, Project
from tests.datasets.test_datasets import trained_model

BUCKET = "memory://bucket/deep"
ROW = {"images_seen": 8.0, "loss": 0.5, "learning_rate": 1e-3, "gradient_norm": 1.0, "validation_loss": 0.4}


@pytest.fixture
def files() -> Iterator[fsspec.AbstractFileSystem]:
    """A file system that is not local, empty before and after."""
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.fixture(autouse=True)
def _no_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not [path for path in tmp_path.rglob("*") if ":" in path.name]


def test_secrets_of_urls_are_not_shown(files: Any) -> None:
    url = "memory://me:hidden@bucket/samples.npz"
    dataset = SamplesDataset(filepath=url)
    assert "hidden" not in str(dataset)
    for kind, path in ((SamplesDataset, url), (CheckpointDataset, url), (SamplesDataset, "nosuch://me:hidden@b/c")):
        with pytest.raises((UserError, DatasetError)) as raised:
            kind(filepath=path, **({"archive": "runs"} if kind is CheckpointDataset else {})).load()
        assert "hidden" not in str(raised.value)


def test_samples_history_and_images_are_saved_to_and_loaded_from_a_remote_file_system(files: Any) -> None:
    samples = Samples(np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3), None, (), MADE_BY)
    dataset = SamplesDataset(filepath=f"{BUCKET}/samples.npz")
    assert not dataset.exists()
    with pytest.raises(DatasetError, match=f"No samples in {BUCKET}/samples.npz; run"):
        dataset.load()
    dataset.save(samples)
    assert files.exists("/bucket/deep/samples.npz")
    assert dataset.exists()
    assert np.array_equal(dataset.load().images, samples.images)
    assert dataset.fingerprint() == MADE_BY.fingerprint
    history = HistoryDataset(filepath=f"{BUCKET}/history.csv")
    history.save([ROW])
    assert history.load() == [ROW]
    assert history.preview()["data"]
    image = FigureDataset(filepath=f"{BUCKET}/grid.png")
    image.save(Image.new("L", (4, 4), 77))
    assert np.asarray(image.load()).max() == 77
    assert image.preview().startswith("iVBOR")
    given = OptionalFigureDataset(filepath=f"{BUCKET}/given.png")
    assert given.load() is None
    given.save(GivenImage("mine.jpg", b"as it is"))
    assert given.load() == GivenImage(f"{BUCKET}/given.png", b"as it is")


def test_a_model_is_uploaded_with_its_marker_last(files: Any) -> None:
    dataset, model = ModelDataset(filepath=f"{BUCKET}/model"), trained_model()
    dataset.save(model)
    dataset.save(model)
    assert sorted(files.ls("/bucket/deep/model", detail=False)) == [
        "/bucket/deep/model/config.json",
        "/bucket/deep/model/model.safetensors",
    ]
    assert dataset.load().config() == model.config()
    assert dataset.fingerprint() == model.run_id
    with dataset.local_copy() as here:
        assert {path.name for path in here.iterdir()} == {"config.json", "model.safetensors"}
    files.rm_file("/bucket/deep/model/config.json")  # as a writer leaves it that was killed
    assert not dataset.exists()
    with pytest.raises(DatasetError, match=f"No trained model in {BUCKET}/model"):
        dataset.load()


def test_partitions_of_figures_are_saved_to_a_remote_file_system(files: Any) -> None:
    dataset = FigureFolderDataset(
        path=f"{BUCKET}/previews", dataset="ddpm_kedro.datasets.figure.FigureDataset", filename_suffix=".png"
    )
    dataset.save({"run/one": Image.new("L", (4, 4), 5), "run/two": Image.new("L", (4, 4), 6)})
    assert sorted(dataset.load()) == ["run/one", "run/two"]
    assert files.exists("/bucket/deep/previews/run/two.png")
    assert dataset.preview().startswith("iVBOR")


def test_remote_data_of_kedros_own_datasets_is_copied_to_a_local_path(files: Any) -> None:
    dataset = TextDataset(filepath=f"{BUCKET}/report.html")
    dataset.save("a page")
    with local_copy(dataset) as here:
        assert here.name == "report.html"
        assert here.read_text() == "a page"


def test_credentials_and_arguments_reach_the_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def url_to_fs(url: str, **kwargs: Any) -> tuple[Any, str]:
        given.update(kwargs)
        return fsspec.filesystem("memory"), "/bucket/samples.npz"

    monkeypatch.setattr(fsspec, "url_to_fs", url_to_fs)
    entry = {
        "type": "ddpm_kedro.datasets.samples.SamplesDataset",
        "filepath": "s3://bucket/samples.npz",
        "credentials": "store",
        "fs_args": {"anon": False},
    }
    catalog = DataCatalog.from_config({"samples": entry}, {"store": {"key": "a key"}})
    assert "a key" not in repr(catalog.get("samples"))
    assert given == {"key": "a key", "anon": False}


@pytest.mark.parametrize(
    "make",
    [
        lambda url: CheckpointDataset(filepath=url, archive="runs"),
        lambda url: CheckpointDataset(filepath="checkpoint.pt", archive=url),
        lambda url: ImageStoreDataset(filepath=url),
    ],
)
def test_a_remote_path_is_rejected_for_a_local_dataset(make: Any) -> None:
    with pytest.raises(UserError, match=r"s3://bucket/x is not on a local disk; a .*Dataset needs one"):
        make("s3://bucket/x")


@pytest.mark.parametrize("url", ["nosuch://bucket/x", "abfs://bucket/x"])
def test_an_unknown_file_system_is_reported(url: str) -> None:
    with pytest.raises(UserError, match=f"{url} cannot be opened: "):
        SamplesDataset(filepath=url)


def test_a_local_url_is_a_local_path(tmp_path: Path) -> None:
    for dataset in (
        HistoryDataset(filepath=f"file://{tmp_path}/history.csv"),
        ImageStoreDataset(filepath=f"file://{tmp_path}/history.csv"),
    ):
        assert isinstance(dataset, LocalDataset | FileDataset)
        assert dataset._filepath == tmp_path / "history.csv"


def test_a_run_with_remote_checkpoints_is_rejected_before_the_first_node(project: Project) -> None:
    (project.folder / "conf/local").mkdir(exist_ok=True)
    (project.folder / "conf/smoke/catalog.yml").write_text(
        "checkpoint:\n  type: ddpm_kedro.datasets.checkpoint.CheckpointDataset\n"
        "  filepath: s3://bucket/checkpoint.pt\n  archive: data/runs\n"
    )
    result = project.kedro_run()
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "s3://bucket/checkpoint.pt is not on a local disk" in result.output
    assert not (project.data / "05_model_input").exists()


def test_a_remote_data_folder_is_rejected(project: Project) -> None:
    (project.folder / "conf/smoke/globals.yml").write_text("data_root: s3://bucket/data")
    result = project.kedro_run()
    assert result.exit_code == 1
    assert "data_root = s3://bucket/data is not on a local disk" in result.output


ELSEWHERE = {
    "model": ("model.ModelDataset", "model"),
    "samples": ("samples.SamplesDataset", "samples.npz"),
    "metrics": ("metrics.MetricsDataset", "metrics.json"),
    "samples_grid": ("figure.FigureDataset", "samples.png"),
    "training_history": ("history.HistoryDataset", "training_history.csv"),
}


@pytest.mark.slow
def test_a_whole_run_saves_to_a_remote_file_system_and_is_archived_locally(project: Project, files: Any) -> None:
    entries = {
        name: {
            "type": f"ddpm_kedro.datasets.{kind}",
            "filepath": f"memory://bucket/{path}",
            "metadata": {"archive": True},
        }
        for name, (kind, path) in ELSEWHERE.items()
    }
    (project.folder / "conf/smoke/catalog.yml").write_text(json.dumps(entries))  # which is YAML, too
    params = "training.num_images=16,training.report_interval=8,training.preview_images=0,sampling.num_images=10"
    for arguments in ([], ["--pipelines", "sampling"]):
        result = project.kedro_run(*arguments, "--params", params)
        assert result.exit_code == 0, result.output
    names = {path for _, path in ELSEWHERE.values() if path != "model"} | {
        "model/config.json",
        "model/model.safetensors",
    }
    assert {name.removeprefix("/bucket/") for name in files.find("/bucket")} == names
    [kept] = (project.data / "runs").glob("*/parameters.json")
    assert all((kept.parent / name).is_file() for name in [*names, "report.html"])
    assert not (project.data / "06_models/model").exists()
