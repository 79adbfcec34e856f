"""Dataset classes: saved data is loaded again, writes are atomic, and damage is reported."""

import errno
import json
import os
import re
import resource
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kedro.io import DatasetError
from PIL import Image

from ddpm_kedro.atomic import atomic_write
from ddpm_kedro.datasets.checkpoint import CheckpointDataset
from ddpm_kedro.datasets.figure import FigureDataset
from ddpm_kedro.datasets.history import HistoryDataset
from ddpm_kedro.datasets.image_store import ImageStoreDataset, _allow_open_files
from ddpm_kedro.datasets.model import ModelDataset
from ddpm_kedro.datasets.samples import SamplesDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.images.store import ImageStore, ShardedImages
from ddpm_kedro.ingestion import shard_writer
from ddpm_kedro.ingestion.lazy_store import LazyImageStore, Shard
from ddpm_kedro.ingestion.statistics import describe_shard
from ddpm_kedro.models import RunRecord, TrainedModel, UNet
from ddpm_kedro.nothing import NOTHING
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.sampling.samples import Samples
from ddpm_kedro.training.run import Checkpoint
from tests.conftest import DIFFUSION, MADE_BY, MODEL, make_store, randomise
from tests.datasets.test_atomic import across_disks
from tests.ingestion.shards import FakeShard, one_shard

WRITTEN = 1 + 3 + 4 + 3  # files of a store: what it is, images and what is known of shards, hashes, labels, the end
OTHER = Provenance({"other": 1}, {})


def record_of(parameters: dict[str, Any]) -> RunRecord:
    return RunRecord(Provenance(parameters, {"training_images": "x"}), (1, 8, 8), ("a", "b"))


RUN_A, RUN_B = (record_of({"training": {"seed": seed}}) for seed in (0, 1))
CHECKPOINT = Checkpoint(
    record=RUN_A,
    images_seen=8,
    network={"w": torch.arange(3.0)},
    ema={"w": torch.ones(3)},
    optimizer={"state": {}},
    scaler={},
    history=[{"images_seen": 8, "loss": 0.5}],
    meter={"steps": 1, "loss": 0.5},
)


def trained_model() -> TrainedModel:
    network = randomise(UNet(MODEL, 1, 2)).eval()
    groups = {"model": MODEL.model_dump(mode="json"), "diffusion": DIFFUSION.model_dump(mode="json")}
    return TrainedModel(network, record_of(groups), 16)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(InterruptedError), atomic_write(path) as file:
        file.write(b"new")
        raise InterruptedError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_written_files_have_the_modes_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "deep" / "file") as file:
            file.write(b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "deep" / "file").stat().st_mode) == 0o644


class TestImageStore:
    @staticmethod
    def lazy(store: ImageStore, read: Any = None) -> LazyImageStore:
        labels = np.full(len(store), -1) if store.labels is None else store.labels
        return LazyImageStore(
            store.made_by, store.class_names, lambda: [FakeShard(read or (lambda: Shard(store.images, labels)))]
        )

    @pytest.mark.parametrize("classes", [0, 3])
    def test_round_trip_is_memory_mapped(self, classes: int, tmp_path: Path) -> None:
        store = make_store(classes=classes)
        dataset = ImageStoreDataset(filepath=str(tmp_path / "store"))
        dataset.save(self.lazy(store))
        loaded = dataset.load()
        assert isinstance(loaded.images, np.memmap)
        assert np.array_equal(loaded.images, store.images)
        assert loaded.class_names == store.class_names
        assert loaded.image_shape == (1, 8, 8)
        assert (loaded.labels is None) == (classes == 0)
        if classes:
            assert np.array_equal(loaded.labels, store.labels)

    def test_the_same_content_is_not_decoded_again_and_another_is(self, tmp_path: Path) -> None:
        dataset = ImageStoreDataset(filepath=str(tmp_path / "store"))
        dataset.save(self.lazy(make_store()))

        def fail() -> Shard:
            raise AssertionError("decoded again")

        dataset.save(self.lazy(make_store(), fail))
        other = replace(make_store(count=7), made_by=Provenance({}, {"raw_images": "another"}))
        dataset.save(self.lazy(other))
        assert len(dataset.load()) == 7

    def test_an_interrupted_save_does_not_count(self, tmp_path: Path) -> None:
        dataset = ImageStoreDataset(filepath=str(tmp_path / "store"))
        dataset.save(self.lazy(make_store()))
        (tmp_path / "store" / "store.json").unlink()
        assert not dataset.exists()
        with pytest.raises(DatasetError, match="run `kedro run --pipelines data_ingestion` first"):
            dataset.load()
        dataset.save(self.lazy(make_store()))
        assert len(dataset.load()) == 40


class TestShards:
    """A store in several shards, with rejected files."""

    @staticmethod
    def lazy(made: list[int] | None = None, workers: int = 0, most: float = 0.5) -> LazyImageStore:
        store, noted = make_store(10), [] if made is None else made
        parts = (slice(0, 4), slice(4, 4), slice(4, 9), slice(9, 10))

        def making(number: int) -> Shard:
            noted.append(number)
            images, labels = store.images[parts[number]], store.labels[parts[number]]
            names = tuple(f"{number}-{index}.png" for index in range(len(images)))
            return Shard(images, labels, names, ((f"bad {number}.png", "it is damaged"), ("empty.png", "it is empty")))

        shards = [FakeShard(partial(making, number)) for number in range(4)]
        return LazyImageStore(store.made_by, store.class_names, lambda: shards, workers, most)

    def test_shards_are_read_like_one_array(self, tmp_path: Path) -> None:
        dataset = ImageStoreDataset(filepath=str(tmp_path / "store"))
        dataset.save(self.lazy())
        loaded, expected = dataset.load(), make_store(10)
        assert isinstance(loaded.images, ShardedImages)
        assert all(isinstance(shard, np.memmap) for shard in loaded.images.shards)
        assert loaded.images.shape == (10, 8, 8, 1)
        assert loaded.images.nbytes == expected.images.nbytes
        for key in (
            3,
            -1,
            slice(2, 9, 3),
            [9, 0, 4, 4, 3],
            np.arange(10) % 3 == 0,
            np.array([[1, 9], [5, 0]]),
            np.arange(0),
        ):
            assert np.array_equal(loaded.images[key], expected.images[key]), key
        assert np.array_equal(np.asarray(loaded.images), expected.images)
        assert np.array_equal(loaded.labels, expected.labels)
        with pytest.raises(IndexError):
            loaded.images[10]

    def test_statistics_and_rejected_files_are_counted(self, tmp_path: Path) -> None:
        dataset = ImageStoreDataset(filepath=str(tmp_path / "store"))
        dataset.save(self.lazy())
        facts, images = dataset.load().statistics, make_store(10).images
        assert facts["rejected"] == {"it is damaged": 4, "it is empty": 4}
        assert (facts["images"], facts["duplicates"], facts["nearly_empty"]) == (10, 0, 0)
        assert facts["mean_of_255"] == [pytest.approx(images.mean(), abs=0.01)]
        assert facts["deviation_of_255"] == [pytest.approx(images.std(), abs=0.01)]

    def test_statistics_are_those_of_all_images_to_the_last_digit(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (150, 5, 7, 3), dtype=np.uint8)
        summary = describe_shard(Shard(images, np.full(150, -1)))["summary"]
        values = images.reshape(-1, 3).astype(np.int64)
        assert (summary["images"], summary["values"]) == (150, len(values))
        assert summary["sum"] == values.sum(0).tolist()
        assert summary["squares"] == (values**2).sum(0).tolist()

    def test_duplicates_and_nearly_empty_images_are_counted(self, tmp_path: Path) -> None:
        images = np.concatenate([make_store(2).images[[0, 1, 0]], np.full((2, 8, 8, 1), [[[[7]]]], np.uint8)])
        dataset = ImageStoreDataset(filepath=str(tmp_path / "store"))
        dataset.save(LazyImageStore(MADE_BY, (), one_shard(images)))
        assert dataset.load().statistics | {"duplicates": 2, "nearly_empty": 2} == dataset.load().statistics

    def test_more_rejected_files_than_allowed_are_an_error(self, tmp_path: Path) -> None:
        dataset = ImageStoreDataset(filepath=str(tmp_path / "store"))
        with pytest.raises(DatasetError) as why:
            dataset.save(self.lazy(most=0.4))
        assert "8 of 18 files gave no image, more than images.max_rejected_fraction = 0.4" in str(why.value)
        assert "4  it is damaged, such as bad 0.png" in str(why.value)
        assert not dataset.exists()
        made: list[int] = []
        dataset.save(self.lazy(made))  # nothing is decoded again when more are allowed
        assert made == []
        assert len(dataset.load()) == 10
        with pytest.raises(DatasetError, match=r"8 of 18 files gave no image.*\n.*it is damaged, such as bad 0.png"):
            dataset.save(self.lazy(made, most=0.4))  # fewer are allowed than at first

    @pytest.mark.parametrize(
        ("limit", "expected"),
        [(None, 6), ("max 100000", 6), ("250000 100000", 2), ("50000 100000", 1), ("900000 100000", 6)],
    )
    def test_workers_are_as_many_as_the_cores_of_a_container(
        self, limit: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
        monkeypatch.setattr(shard_writer, "CPU_LIMIT", tmp_path / "cpu.max")
        if limit is not None:
            (tmp_path / "cpu.max").write_text(f"{limit}\n")
        assert shard_writer.count_cores() == expected

    def test_equal_images_have_equal_hashes(self, tmp_path: Path) -> None:
        dataset = ImageStoreDataset(filepath=str(tmp_path / "store"))
        dataset.save(self.lazy())
        hashes = dataset.load().hashes
        assert hashes is not None
        assert isinstance(hashes, np.memmap)
        same = make_store(10).images[3]
        again = ImageStoreDataset(filepath=str(tmp_path / "again"))
        again.save(LazyImageStore(MADE_BY, (), one_shard(same[None])))
        assert np.flatnonzero(np.isin(hashes, again.load().hashes)).tolist() == [3]

    @pytest.mark.parametrize("after", range(3))
    def test_an_earlier_store_stays_until_the_new_one_is_complete(self, after: int, tmp_path: Path) -> None:
        dataset = ImageStoreDataset(filepath=str(tmp_path / "store"))
        dataset.save(LazyImageStore(MADE_BY, (), one_shard(make_store(5).images)))
        lazy, made = self.lazy(), list[int]()

        def interrupt() -> Shard:
            raise InterruptedError

        cut = replace(lazy, made_by=OTHER, shards=lambda: [*list(lazy.shards())[:after], FakeShard(interrupt)])
        with pytest.raises(DatasetError):
            dataset.save(cut)
        assert len(dataset.load()) == 5
        dataset.save(replace(self.lazy(made), made_by=OTHER))
        assert made == list(range(after, 4))
        assert len(dataset.load()) == 10
        assert os.listdir(tmp_path) == ["store"]

    def test_a_store_may_be_a_link_to_another_disk(self, tmp_path: Path) -> None:
        (tmp_path / "disk/store").mkdir(parents=True)
        (tmp_path / "store").symlink_to(tmp_path / "disk/store")
        dataset = ImageStoreDataset(filepath=str(tmp_path / "store"))
        for made_by in (MADE_BY, OTHER):
            dataset.save(replace(self.lazy(), made_by=made_by))
            assert dataset.load().made_by == made_by
        assert os.listdir(tmp_path / "disk") == ["store"]
        assert (tmp_path / "store").is_symlink()

    def test_a_store_that_is_replaced_while_it_is_read_is_read_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset, load, times = ImageStoreDataset(filepath=str(tmp_path / "store")), np.load, iter(range(100))
        dataset.save(LazyImageStore(MADE_BY, (), one_shard(make_store(5).images)))

        def replace_first(*arguments: Any, **options: Any) -> Any:
            if next(times) == 0:
                dataset.save(replace(self.lazy(), made_by=OTHER))
            return load(*arguments, **options)

        monkeypatch.setattr(np, "load", replace_first)
        store = dataset.load()
        assert (len(store), store.made_by, len(store.labels)) == (10, OTHER, 10)

    def test_a_shared_store_is_read_and_never_written(self, tmp_path: Path) -> None:
        path, made = str(tmp_path / "store"), list[int]()
        ImageStoreDataset(filepath=path).save(self.lazy())
        (tmp_path / ".store.new").mkdir()  # what its owner has begun
        shared = ImageStoreDataset(filepath=path, shared="data")
        shared.save(self.lazy(made))
        assert len(shared.load()) == 10
        with pytest.raises(DatasetError, match=r"store belongs to another data folder \(images_root in globals.yml\)"):
            shared.save(replace(self.lazy(made), made_by=OTHER))
        assert made == []
        assert (tmp_path / ".store.new").exists()

    def test_as_many_files_as_there_are_shards_may_be_open(self, monkeypatch: pytest.MonkeyPatch) -> None:
        limits = [256, 4096]
        monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
        monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.__setitem__(slice(None), new))
        _allow_open_files(1000)
        assert limits == [1512, 4096]
        with pytest.raises(UserError, match="are in 5,000 files, more than this process may open: run ulimit -n 5512"):
            _allow_open_files(5000)

    @pytest.mark.parametrize("after", range(WRITTEN + 1))
    def test_an_interrupted_save_resumes(self, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """After a power cut at any file, the resumed save writes the same bytes."""
        whole, cut = (ImageStoreDataset(filepath=str(tmp_path / name)) for name in ("whole", "cut"))
        whole.save(self.lazy())
        count = 0

        @contextmanager
        def failing(path: Path) -> Iterator[Any]:
            nonlocal count
            count += 1
            if count > after:
                raise OSError(28, "No space left on device")
            with atomic_write(path) as file:
                yield file

        before: list[int] = []
        with monkeypatch.context() as patch:
            for module in ("datasets.image_store", "ingestion.shard_writer"):
                patch.setattr(f"ddpm_kedro.{module}.atomic_write", failing)
            with suppress(DatasetError):  # with the last it is not interrupted
                cut.save(self.lazy(before))
        assert cut.exists() == (after >= WRITTEN)
        made: list[int] = []
        cut.save(self.lazy(made))
        assert not set(made) & set(before[:-1]), "a shard that was there was made again"
        contents = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("whole", "cut")]
        assert contents[0] == contents[1]

    def test_unfinished_shards_of_another_store_are_not_used(self, tmp_path: Path) -> None:
        dataset = ImageStoreDataset(filepath=str(tmp_path / "store"))
        with pytest.raises(DatasetError, match="gave no image"):
            dataset.save(self.lazy(most=0.1))
        made: list[int] = []
        other = replace(self.lazy(made), made_by=Provenance({}, {"raw_images": "another"}))
        dataset.save(other)
        assert made == [0, 1, 2, 3]


class TestPair:
    """Training and holdout images: a new store is never beside an earlier one."""

    @staticmethod
    def pair(folder: Path) -> tuple[ImageStoreDataset, ImageStoreDataset]:
        training = ImageStoreDataset(filepath=str(folder / "training"), waits_for="holdout")
        return training, ImageStoreDataset(filepath=str(folder / "holdout"), completes="training")

    @staticmethod
    def lazy(set_name: str) -> LazyImageStore:
        images = make_store(5).images
        return LazyImageStore(Provenance({"set": set_name}, {}), (), one_shard(images))

    @classmethod
    def sets(cls, folder: Path) -> tuple[str, ...]:
        """Return the set that each of the two stores is of."""
        return tuple(each.load().made_by.parameters["set"] if each.exists() else "none" for each in cls.pair(folder))

    def save(self, folder: Path, set_name: str) -> None:
        for dataset in self.pair(folder):
            dataset.save(self.lazy(set_name))

    def test_both_stores_appear_together(self, tmp_path: Path) -> None:
        training, holdout = self.pair(tmp_path)
        training.save(self.lazy("red"))
        assert self.sets(tmp_path) == ("none", "none")
        holdout.save(self.lazy("red"))
        assert self.sets(tmp_path) == ("red", "red")
        training.save(self.lazy("blue"))
        assert self.sets(tmp_path) == ("red", "red")
        holdout.save(self.lazy("blue"))
        assert self.sets(tmp_path) == ("blue", "blue")
        assert sorted(os.listdir(tmp_path)) == ["holdout", "training"]

    def test_an_unfinished_other_pair_is_removed(self, tmp_path: Path) -> None:
        self.save(tmp_path, "red")
        self.pair(tmp_path)[0].save(self.lazy("blue"))
        self.save(tmp_path, "red")
        assert self.sets(tmp_path) == ("red", "red")
        assert sorted(os.listdir(tmp_path)) == ["holdout", "training"]

    def test_the_holdout_alone_may_change(self, tmp_path: Path) -> None:
        training, holdout = self.pair(tmp_path)
        self.save(tmp_path, "red")
        training.save(self.lazy("red"))
        holdout.save(self.lazy("red and more"))
        assert self.sets(tmp_path) == ("red", "red and more")

    @pytest.mark.parametrize("exchange", [True, False], ids=["one step", "two steps"])
    @pytest.mark.parametrize("moment", range(5, 15))
    @pytest.mark.parametrize("then", ["red", "blue"])
    def test_a_kill_between_two_renames_mixes_nothing(
        self, moment: int, then: str, exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.save(tmp_path, "red")
        count = iter(range(100))

        def killing(change: Callable[..., Any]) -> Callable[..., Any]:
            def change_unless_killed(*arguments: Any, **options: Any) -> Any:
                if next(count) >= moment:
                    raise KeyboardInterrupt
                return change(*arguments, **options)

            return change_unless_killed

        if not exchange:
            monkeypatch.setattr("ddpm_kedro.atomic.ctypes.CDLL", lambda *_, **__: None)
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            self.pair(tmp_path)[0].save(self.lazy("blue"))
            for name in ("os.replace", "shutil.rmtree", "ddpm_kedro.datasets.image_store.take_place"):
                module, attribute = name.rsplit(".", 1)
                patch.setattr(name, killing(getattr(sys.modules[module], attribute)))
            self.pair(tmp_path)[1].save(self.lazy("blue"))
            assert next(count) < 15, "more moments than are tried"
        assert self.sets(tmp_path) in {
            ("red", "red"),
            ("red", "none"),
            ("none", "none"),
            ("blue", "none"),
            ("blue", "blue"),
        }
        self.save(tmp_path, then)
        assert self.sets(tmp_path) == (then, then)
        assert sorted(os.listdir(tmp_path)) == ["holdout", "training"]
        assert sorted(os.listdir(tmp_path / "training")) == ["00000.json", "00000.npy", "hashes.npy", "store.json"]


class TestCheckpoint:
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> CheckpointDataset:
        return CheckpointDataset(filepath=str(tmp_path / "checkpoint.pt"), archive=str(tmp_path / "runs"))

    def test_nothing_there_is_none(self, dataset: CheckpointDataset) -> None:
        assert dataset.load() is None

    def test_nothing_due_writes_nothing(self, dataset: CheckpointDataset, tmp_path: Path) -> None:
        dataset.save(NOTHING)
        assert not list(tmp_path.iterdir())

    def test_round_trip(self, dataset: CheckpointDataset) -> None:
        dataset.save(CHECKPOINT)
        loaded = dataset.load()
        assert loaded is not None
        assert torch.equal(loaded.network["w"], CHECKPOINT.network["w"])
        plain = {"network": {}, "ema": {}}
        assert replace(loaded, **plain) == replace(CHECKPOINT, **plain)

    def test_the_checkpoint_of_another_run_is_kept(self, dataset: CheckpointDataset, tmp_path: Path) -> None:
        dataset.save(CHECKPOINT)
        dataset.save(replace(CHECKPOINT, images_seen=16))
        assert not (tmp_path / "runs").exists()
        dataset.save(replace(CHECKPOINT, record=RUN_B))
        kept = CheckpointDataset(filepath=str(dataset.archived(RUN_A.run_id)), archive=str(tmp_path / "runs")).load()
        assert kept is not None
        assert (kept.record, kept.images_seen) == (RUN_A, 16)
        assert dataset.load().record == RUN_B

    def test_some_of_a_runs_checkpoints_are_kept(self, tmp_path: Path) -> None:
        path, archive = tmp_path / "checkpoint.pt", tmp_path / "runs"
        dataset = CheckpointDataset(filepath=str(path), archive=str(archive), keep=3)
        for seen in (8, 16, 24, 24, 32):
            dataset.save(replace(CHECKPOINT, images_seen=seen))
        kept = sorted((archive / RUN_A.run_id / "checkpoints").iterdir())
        assert [file.name for file in kept] == ["images_seen_0000000016.pt", "images_seen_0000000024.pt"]
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(DatasetError, match=rf"or replace it by an earlier one: mv {re.escape(str(kept[1]))}"):
            dataset.load()
        kept[1].rename(path)
        assert dataset.load().images_seen == 24

    def test_a_kept_checkpoint_is_not_overwritten_by_one_of_fewer_images(
        self, dataset: CheckpointDataset, tmp_path: Path
    ) -> None:
        """Run a is finished, run b comes, run a is trained once more and killed, and run b comes again."""
        for record, seen in ((RUN_A, 64), (RUN_B, 8), (RUN_A, 16), (RUN_B, 8)):
            dataset.save(replace(CHECKPOINT, record=record, images_seen=seen))
        kept = {
            path.relative_to(tmp_path).as_posix(): torch.load(path)["images_seen"] for path in tmp_path.rglob("*.pt")
        }
        assert kept == {
            "checkpoint.pt": 8,
            f"runs/{RUN_A.run_id}/checkpoint.pt": 16,
            f"runs/{RUN_A.run_id}/retired_1/checkpoint.pt": 64,
            f"runs/{RUN_B.run_id}/checkpoint.pt": 8,
        }

    def test_retired_checkpoints_of_all_runs_are_neither_restored_nor_offered(self, tmp_path: Path) -> None:
        dataset = CheckpointDataset(filepath=str(tmp_path / "checkpoint.pt"), archive=str(tmp_path / "runs"), keep=3)
        for record in (RUN_A, RUN_B):
            for seen in (8, 16):
                dataset.save(replace(CHECKPOINT, record=record, images_seen=seen))
        retired = dataset.retire()
        assert [path.relative_to(tmp_path / "runs").as_posix() for path in retired] == [
            f"{record.run_id}/retired_1" for record in sorted((RUN_A, RUN_B), key=lambda record: record.run_id)
        ]
        kept = {path.relative_to(folder).as_posix() for folder in retired for path in folder.rglob("*.pt")}
        assert kept == {"checkpoint.pt", "checkpoints/images_seen_0000000008.pt"}
        assert dataset.load() is None
        assert dataset.restore(RUN_A.run_id) is None
        (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
        with pytest.raises(DatasetError, match=r"Move it away to train from scratch\.$"):
            dataset.load()

    def test_the_best_checkpoint_leaves_the_earlier_ones_alone(self, tmp_path: Path) -> None:
        latest, best = (
            CheckpointDataset(filepath=str(tmp_path / name), archive=str(tmp_path / "runs"), keep=keep)
            for name, keep in (("checkpoint.pt", 4), ("best_checkpoint.pt", 1))
        )
        for seen in (8, 16, 24, 32):
            best.save(replace(CHECKPOINT, images_seen=seen))
            latest.save(replace(CHECKPOINT, images_seen=seen))
        assert len(list((tmp_path / "runs" / RUN_A.run_id / "checkpoints").iterdir())) == 3

    def test_what_is_kept_may_lie_on_another_disk(
        self, dataset: CheckpointDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        across_disks(monkeypatch)
        keeping = CheckpointDataset(filepath=str(tmp_path / "checkpoint.pt"), archive=str(tmp_path / "runs"), keep=2)
        keeping.save(CHECKPOINT)
        keeping.save(replace(CHECKPOINT, images_seen=16))
        keeping.save(replace(CHECKPOINT, record=RUN_B))
        assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.pt")) == [
            "checkpoint.pt",
            f"runs/{RUN_A.run_id}/checkpoint.pt",
            f"runs/{RUN_A.run_id}/checkpoints/images_seen_0000000008.pt",
        ]
        restored = dataset.restore(RUN_A.run_id)
        assert restored is not None
        assert restored.images_seen == 16
        assert dataset.archived(RUN_B.run_id).exists()
        dataset.retire()
        assert not (tmp_path / "checkpoint.pt").exists()

    def test_what_others_wrote_meanwhile_is_noticed(self, dataset: CheckpointDataset, tmp_path: Path) -> None:
        dataset.save(CHECKPOINT)
        other = CheckpointDataset(filepath=str(tmp_path / "checkpoint.pt"), archive=str(tmp_path / "runs"))
        other.save(replace(CHECKPOINT, record=RUN_B))
        dataset.save(replace(CHECKPOINT, images_seen=16))
        assert dataset.archived(RUN_A.run_id).exists()
        assert dataset.archived(RUN_B.run_id).exists()

    def test_a_full_disk_leaves_the_last_checkpoint_whole(
        self, dataset: CheckpointDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset.save(CHECKPOINT)

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(DatasetError, match="No space left on device"):
            dataset.save(replace(CHECKPOINT, images_seen=16))
        assert dataset.load().images_seen == 8
        assert os.listdir(tmp_path) == ["checkpoint.pt"]

    @pytest.mark.parametrize("damage", ["truncated", "empty", "text", "code", "other format"])
    def test_damage_is_named_and_nothing_is_executed(
        self, damage: str, dataset: CheckpointDataset, tmp_path: Path
    ) -> None:
        path = tmp_path / "checkpoint.pt"
        dataset.save(CHECKPOINT)
        content = path.read_bytes()
        match damage:
            case "truncated":
                path.write_bytes(content[: len(content) // 2])
            case "empty":
                path.write_bytes(b"")
            case "text":
                path.write_text("hello")
            case "code":
                torch.save({"format": Bomb(tmp_path)}, path)
            case _:
                torch.save({"format": "something else"}, path)
        with pytest.raises(DatasetError, match=r"checkpoint.pt is damaged or not a checkpoint of this version"):
            dataset.load()
        assert not (tmp_path / "executed").exists()


class Bomb:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder / "executed"),)


class TestModel:
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> ModelDataset:
        return ModelDataset(filepath=str(tmp_path / "model"))

    def test_round_trip_gives_the_same_predictions(self, dataset: ModelDataset, tmp_path: Path) -> None:
        model = trained_model()
        dataset.save(model)
        dataset.save(model)
        loaded = dataset.load()
        x, t, labels = torch.randn(2, 1, 8, 8), torch.tensor([1, 50]), torch.tensor([0, 2])
        assert torch.equal(loaded.network(x, t, labels), model.network(x, t, labels))
        assert loaded.config() == model.config()
        assert dataset.fingerprint() == loaded.run_id == model.run_id
        assert not loaded.network.training
        assert loaded.diffusion == DIFFUSION
        assert sorted(os.listdir(tmp_path)) == ["model"]
        assert sorted(os.listdir(tmp_path / "model")) == ["config.json", "model.safetensors"]

    def test_a_missing_model_is_reported_with_the_command_that_makes_one(self, dataset: ModelDataset) -> None:
        with pytest.raises(DatasetError, match=r"No trained model in .*; run `kedro run` first"):
            dataset.load()

    @pytest.mark.parametrize("damage", ["weights missing", "weights truncated", "other width", "no JSON", "no groups"])
    def test_damage_is_named(self, damage: str, dataset: ModelDataset, tmp_path: Path) -> None:
        dataset.save(trained_model())
        folder = tmp_path / "model"
        config = json.loads((folder / "config.json").read_text())
        match damage:
            case "weights missing":
                (folder / "model.safetensors").unlink()
            case "weights truncated":
                (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:99])
            case "other width":
                config["parameters"]["model"]["width"] = 16
            case "no groups":
                del config["parameters"]["model"]
        (folder / "config.json").write_text("{" if damage == "no JSON" else json.dumps(config))
        with pytest.raises(DatasetError, match=r"/model is damaged, or of another version: .*exports it again"):
            dataset.load()


class TestSamples:
    @pytest.mark.parametrize("labels", [None, np.array([1, 0], dtype=np.int64)])
    def test_samples_have_the_layout_of_openais_evaluator(self, labels: Any, tmp_path: Path) -> None:
        path = tmp_path / "samples.npz"
        dataset = SamplesDataset(filepath=str(path))
        images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)
        dataset.save(Samples(images, labels, ("a", "b"), MADE_BY))
        with np.load(path) as arrays:
            assert np.array_equal(arrays["arr_0"], images)
            assert ("arr_1" in arrays) == (labels is not None)
        loaded = dataset.load()
        assert np.array_equal(loaded.images, images)
        assert loaded.labels is None if labels is None else loaded.labels.tolist() == [1, 0]
        assert loaded.made_by == MADE_BY

    @pytest.mark.parametrize("damage", ["empty", "truncated", "of another program"])
    def test_damage_is_named(self, damage: str, tmp_path: Path) -> None:
        path = tmp_path / "samples.npz"
        dataset = SamplesDataset(filepath=str(path))
        dataset.save(Samples(np.zeros((2, 4, 4, 1), np.uint8), None, (), MADE_BY))
        match damage:
            case "empty":
                path.write_bytes(b"")
            case "truncated":
                path.write_bytes(path.read_bytes()[:99])
            case _:
                np.savez(path, arr_0=np.zeros((2, 4, 4, 1), np.uint8))
        with pytest.raises(DatasetError, match=r"samples.npz is damaged, or of another version: .*samples them again"):
            dataset.load()

    def test_missing_samples_are_reported(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="No samples in"):
            SamplesDataset(filepath=str(tmp_path / "samples.npz")).load()


def test_figures_are_saved_loaded_and_previewed(tmp_path: Path) -> None:
    dataset = FigureDataset(filepath=str(tmp_path / "deep" / "figure.png"))
    figure = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    dataset.save(figure)
    assert np.array_equal(np.asarray(dataset.load()), np.asarray(figure))
    assert dataset.preview().startswith("iVBOR")  # base64 of a PNG's first bytes
    assert FigureDataset.preview.__annotations__["return"].__name__ == "ImagePreview"  # Kedro-Viz looks at this name


def test_history_keeps_every_digit_and_is_previewed(tmp_path: Path) -> None:
    dataset = HistoryDataset(filepath=str(tmp_path / "history.csv"))
    other = {"validation_loss": 0.5, "learning_rate": 1e-3}
    rows = [{"images_seen": 8.0, "loss": 0.1 + 0.2} | other, {"images_seen": 16.0, "loss": 1 / 3} | other]
    dataset.save(rows)
    assert dataset.load() == rows
    assert HistoryDataset.preview.__annotations__["return"].__name__ == "PlotlyPreview"  # what Kedro-Viz goes by
    [loss, *_] = dataset.preview()["data"]
    assert list(loss["y"]) == [row["loss"] for row in rows]
    dataset.save(rows[:1])
    assert dataset.load() == rows[:1]
