"""Damaged files: a dataset returns what was saved, or an error says in one sentence what to do."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kedro.io import DatasetError

from ddpm_kedro.datasets.checkpoint import CheckpointDataset
from ddpm_kedro.datasets.document import DocumentDataset
from ddpm_kedro.datasets.feature_extractor import FeatureExtractorDataset
from ddpm_kedro.datasets.history import HistoryDataset
from ddpm_kedro.datasets.image_store import ImageStoreDataset
from ddpm_kedro.datasets.metrics import MetricsDataset
from ddpm_kedro.datasets.model import ModelDataset
from ddpm_kedro.datasets.samples import SamplesDataset
from ddpm_kedro.datasets.tensors import TensorsDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.metrics.classifier import Classifier
from ddpm_kedro.metrics.extractor import FeatureExtractor, LazyFeatureExtractor
from ddpm_kedro.metrics.scores import Score
from ddpm_kedro.metrics.table import Metrics
from ddpm_kedro.sampling.samples import Samples
from tests.conftest import MADE_BY
from tests.datasets.test_checkpoint_format import in_format_2
from tests.datasets.test_datasets import CHECKPOINT, RUN_A, RUN_B, TestShards, trained_model

FLIPS = 60  # positions of a file at which a bit is flipped
SCORE = Score(name="KID", value=0.5, n=9, better="lower", holdout_value=0.25, holdout_n=9)
METRICS = Metrics([SCORE], {"verdict": "no sign of copying"}, {"n": 9}, "inception", 5, MADE_BY)
EXTRACTOR = FeatureExtractor("classifier", Classifier(1, 2).eval(), (1, 8, 8), ("a", "b"), MADE_BY)
IMAGES = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1)


def saved(name: str, folder: Path) -> Any:
    """Return a dataset after a save."""
    path = str(folder / name)
    dataset: Any
    match name:
        case "checkpoint.pt":
            dataset, data = CheckpointDataset(filepath=path, archive=str(folder / "runs")), CHECKPOINT
        case "model":
            dataset, data = ModelDataset(filepath=path), trained_model()
        case "samples.npz":
            dataset, data = SamplesDataset(filepath=path), Samples(IMAGES, np.array([1, 0]), ("a", "b"), MADE_BY)
        case "metrics.json":
            dataset, data = MetricsDataset(filepath=path), METRICS
        case "document.json":
            dataset, data = DocumentDataset(filepath=path), {"num_images": 9, "seconds": 1.5, "sampler": "ddim"}
        case "rows.json":
            dataset, data = DocumentDataset(filepath=path), [{"timestep": 9, "validation_loss": 0.5}]
        case "feature_extractor":
            dataset, data = FeatureExtractorDataset(filepath=path), LazyFeatureExtractor(MADE_BY, lambda _: EXTRACTOR)
    dataset.save(data)
    return dataset


SAVED = ("checkpoint.pt", "model", "samples.npz", "metrics.json", "document.json", "rows.json", "feature_extractor")


def plain(data: Any) -> Any:
    """Return loaded data in a form that can be compared."""
    if isinstance(data, torch.Tensor | np.ndarray):
        return str(data.dtype), data.tolist()
    if isinstance(data, torch.nn.Module):
        return plain(data.state_dict())
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    return plain(vars(data)) if hasattr(data, "__dict__") else data


def loaded(dataset: Any) -> Any:
    try:
        return plain(dataset.load())
    except DatasetError as error:
        return error


def damages(content: bytes) -> Iterator[tuple[str, bytes]]:
    for at in (0, len(content) // 2, len(content) - 3):
        yield f"cut after {at} bytes", content[:at]
    for at in np.linspace(0, len(content) - 1, FLIPS).astype(int):
        for bit in (0x01, 0x10):
            yield f"bit {bit:#x} of byte {at}", content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]


@pytest.mark.parametrize("name", SAVED)
def test_damaged_files_are_refused_or_read_correctly(name: str, tmp_path: Path) -> None:
    dataset = saved(name, tmp_path)
    expected, refused = plain(dataset.load()), 0
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for what, damaged in damages(content):
            path.write_bytes(damaged)
            found = loaded(dataset)
            if isinstance(found, DatasetError):
                assert isinstance(found.__cause__, UserError), (path, what, found)
                assert str(found.__cause__).startswith(f"{tmp_path / name} is damaged"), (path, what, found)
                assert "\n" not in str(found.__cause__)
                refused += 1
            else:  # only the name of the checksum itself can have changed
                assert found == expected or expected.items() <= found.items(), (path, what)
        path.write_bytes(content)
        assert plain(dataset.load()) == expected
    assert refused > FLIPS


@pytest.mark.parametrize("name", SAVED)
def test_a_file_in_place_of_a_folder_or_a_folder_in_place_of_a_file_is_named(name: str, tmp_path: Path) -> None:
    dataset = saved(name, tmp_path)
    path = tmp_path / name
    if path.is_dir():
        path.rename(tmp_path / "other")
        path.write_text("text")
    else:
        path.unlink()
        path.mkdir()
    with pytest.raises(DatasetError) as error:
        dataset.load()
    assert isinstance(error.value.__cause__, UserError | OSError)
    assert str(path) in str(error.value.__cause__)


def test_a_damaged_extractor_is_fitted_again_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = saved("feature_extractor", tmp_path)
    expected = plain(dataset.load())
    for name in ("weights.pt", "config.json"):
        path = tmp_path / "feature_extractor" / name
        path.write_bytes(path.read_bytes()[:50])
        caplog.clear()
        dataset.save(LazyFeatureExtractor(MADE_BY, lambda _: EXTRACTOR))
        assert "feature_extractor is damaged" in caplog.text
        assert "It is made again." in caplog.text
        assert plain(dataset.load()) == expected


@pytest.mark.parametrize("run_id", ["../../../x", "/tmp/x", "a/b", "..", ".", "", "a" * 65, "a\nb"])
@pytest.mark.parametrize("name", ["run_id", "tracking_id"])
def test_a_checkpoint_whose_run_id_is_not_a_plain_name_is_refused(name: str, run_id: Any, tmp_path: Path) -> None:
    dataset = CheckpointDataset(filepath=str(tmp_path / "data/checkpoint.pt"), archive=str(tmp_path / "data/runs"))
    if name == "tracking_id" and run_id == "":
        return
    if name == "run_id":  # only the earlier format names the run
        words = "do not match its run id"
        dataset.save(CHECKPOINT)
        torch.save(in_format_2(CHECKPOINT) | {"run_id": run_id}, tmp_path / "data/checkpoint.pt")
    else:
        words = "which is not a plain name"
        dataset.save(replace(CHECKPOINT, record=replace(RUN_A, tracking_id=run_id)))
    before = sorted(tmp_path.rglob("*"))
    fresh = CheckpointDataset(filepath=str(tmp_path / "data/checkpoint.pt"), archive=str(tmp_path / "data/runs"))
    with pytest.raises(DatasetError, match=words):
        fresh.load()
    with pytest.raises(DatasetError, match=words):
        fresh.save(replace(CHECKPOINT, record=RUN_B))
    assert sorted(tmp_path.rglob("*")) == before


def edited(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change a model's config.json by hand, without its checksum."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["checksum"]
    edit(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda config: config.update(image_shape=[1]), "image_shape"),
        (lambda config: config.update(image_shape=[1, -8, 8]), "image_shape"),
        (lambda config: config.update(image_shape=[1, 8, 10**9]), "image_shape"),
        (lambda config: config.update(image_shape=None), "image_shape"),
        (lambda config: config.update(class_names=[0, 1]), "class_names"),
        (lambda config: config.update(class_names=["a"]), "do not fit"),
        (lambda config: config.update(images_seen="many"), "images_seen"),
        (lambda config: config.update(parameters=[]), "parameters"),
        (lambda config: config["parameters"].pop("diffusion"), "diffusion"),
        (lambda config: config["parameters"]["model"].update(width=65_536), "do not match its run id"),
        (lambda config: (config["parameters"]["model"].update(width=65_536), config.pop("run_id")), "do not fit"),
        (lambda config: (config["parameters"]["model"].update(width=2**62), config.pop("run_id")), "too large"),
        (lambda config: (config["parameters"]["model"].update(blocks_per_level=10**9), config.pop("run_id")), "few"),
        (lambda config: config.update(inputs={"training_images": 3}), "inputs"),
    ],
)
def test_invalid_values_of_a_models_configuration_are_named_at_once(
    edit: Callable[[dict[str, Any]], Any], words: str, tmp_path: Path
) -> None:
    dataset = saved("model", tmp_path)
    edited(tmp_path / "model", edit)
    with pytest.raises(DatasetError, match=words) as error:
        dataset.load()
    assert isinstance(error.value.__cause__, UserError)


def test_a_model_of_an_earlier_version_without_checksums_is_loaded(tmp_path: Path) -> None:
    dataset = saved("model", tmp_path)
    expected = plain(dataset.load())
    edited(tmp_path / "model", lambda config: config.pop("weights_sha256"))
    assert plain(dataset.load()) == expected
    assert dataset.fingerprint() == trained_model().run_id


def test_a_changed_configuration_says_how_to_accept_the_change(tmp_path: Path) -> None:
    dataset = saved("model", tmp_path)
    path = tmp_path / "model/config.json"
    path.write_text(path.read_text().replace('"a"', '"cat"'))
    with pytest.raises(DatasetError, match="remove its line checksum if you changed it"):
        dataset.load()
    edited(tmp_path / "model", lambda config: None)
    assert dataset.load().class_names == ("cat", "b")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_loaded_nor_exported(value: float, tmp_path: Path) -> None:
    model = trained_model()
    model.network.conv_in.bias.data[0] = value
    dataset = ModelDataset(filepath=str(tmp_path / "model"))
    dataset.save(model)
    with pytest.raises(DatasetError, match=r"weights are not finite: conv_in.bias"):
        dataset.load()


def test_loading_uses_no_global_random_numbers(tmp_path: Path) -> None:
    datasets = [saved(name, tmp_path) for name in SAVED]
    before = torch.random.get_rng_state()
    for dataset in datasets:
        dataset.load()
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    "text", ["", "images_seen,loss\n8,", "images_seen,loss\n8,x\n", "loss\n1\n", "a,b\n1\n", "\0", '"a']
)
def test_a_damaged_history_is_named(text: str, tmp_path: Path) -> None:
    dataset = HistoryDataset(filepath=str(tmp_path / "history.csv"))
    dataset.save([{"images_seen": 8.0, "loss": 1.0}])
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(DatasetError, match=r"history.csv is damaged.*writes it again"):
        dataset.load()


def test_damaged_tensors_are_named(tmp_path: Path) -> None:
    dataset = TensorsDataset(filepath=str(tmp_path / "batch.safetensors"))
    dataset.save({"images": torch.zeros(3)})
    (tmp_path / "batch.safetensors").write_bytes(b"abc")
    with pytest.raises(DatasetError, match=r"batch.safetensors is damaged"):
        dataset.load()


class TestImageStore:
    @staticmethod
    def dataset(folder: Path) -> ImageStoreDataset:
        return ImageStoreDataset(filepath=str(folder / "store"))

    @staticmethod
    def content(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (folder / "store").iterdir()}

    def images(self, folder: Path) -> Any:
        store = self.dataset(folder).load()
        return (
            np.asarray(store.images).tolist(),
            store.labels.tolist(),
            store.class_names,
            store.made_by,
            store.statistics,
        )

    def images_or_error(self, folder: Path) -> Any:
        try:
            return self.images(folder)
        except DatasetError as error:
            return error

    def test_damage_of_a_store_is_named_and_repaired_by_the_same_save(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.dataset(tmp_path).save(TestShards.lazy())
        whole, expected = self.content(tmp_path), self.images(tmp_path)
        for name, content in whole.items():
            every = [*damages(content)]
            for what, damaged in every[:3] + every[3 :: 12 if name.endswith("npy") else 30]:
                (tmp_path / "store" / name).write_bytes(damaged)
                caplog.clear()
                found = self.images_or_error(tmp_path)
                said = isinstance(found, DatasetError)
                if said:
                    assert "store is damaged" in str(found), (name, what, found)
                    assert "data_ingestion` repairs it" in str(found), (name, what, found)
                else:
                    assert found == expected, (name, what)
                self.dataset(tmp_path).save(TestShards.lazy())
                assert ("It is made again." in caplog.text) == said, (name, what)
                assert self.images(tmp_path) == expected
                (tmp_path / "store" / name).write_bytes(content)
                assert said or name[:5].isdigit() or name == "store.json", (name, what)
        assert self.content(tmp_path) == whole

    def test_only_the_damaged_shard_is_written_again(self, tmp_path: Path) -> None:
        dataset = self.dataset(tmp_path)
        dataset.save(TestShards.lazy())
        whole = self.content(tmp_path)
        path = tmp_path / "store/00002.npy"
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        made: list[int] = []
        dataset.save(TestShards.lazy(made))
        assert made == [2]
        assert self.content(tmp_path) == whole
        (tmp_path / "store/labels.npy").write_bytes(b"")
        dataset.save(TestShards.lazy(made))
        assert made == [2]
        assert self.content(tmp_path) == whole

    def test_an_interrupted_save_repairs_damaged_shards(self, tmp_path: Path) -> None:
        dataset = self.dataset(tmp_path)
        dataset.save(TestShards.lazy())
        whole = self.content(tmp_path)
        new = tmp_path / ".store.new"
        (tmp_path / "store").rename(new)
        (new / "store.json").unlink()
        (new / "unfinished.json").write_text(json.dumps(MADE_BY.as_dict()))
        (new / "00000.json").write_text("{")
        made: list[int] = []
        dataset.save(TestShards.lazy(made))
        assert made == [0]
        assert self.content(tmp_path) == whole
        (tmp_path / "store").rename(new)
        (new / "unfinished.json").write_text("{")
        dataset.save(TestShards.lazy(made))
        assert self.content(tmp_path) == whole

    def test_the_content_of_a_shard_is_read_once_on_a_host(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.dataset(tmp_path).save(TestShards.lazy())
        hashed = 0

        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal hashed
            hashed += 1
            return blake2b(*arguments, **options)

        monkeypatch.setattr("hashlib.blake2b", counted)
        monkeypatch.setattr("ddpm_kedro.datasets.store_check.NOTED_FROM", 0)
        for _ in range(3):
            self.dataset(tmp_path).load()
        assert hashed == 10
        monkeypatch.setattr("ddpm_kedro.datasets.store_check.CHECKED", set())
        self.dataset(tmp_path).load()
        assert hashed == 10
        monkeypatch.setattr("socket.gethostname", lambda: "another")
        self.dataset(tmp_path).load()
        assert hashed == 20

    def test_a_store_of_an_earlier_version_without_checksums_is_loaded(self, tmp_path: Path) -> None:
        self.dataset(tmp_path).save(TestShards.lazy())
        expected = self.images(tmp_path)
        path = tmp_path / "store/store.json"
        meta = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in meta.items() if key not in {"sha256", "checksum"}}))
        (tmp_path / "store/hashes.npy").unlink()
        assert self.images(tmp_path) == expected
