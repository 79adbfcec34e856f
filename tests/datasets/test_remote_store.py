"""Stores that several hosts share."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from kedro.io import DatasetError

from ddpm_kedro.datasets.remote_store import RemoteImageStoreDataset
from ddpm_kedro.ingestion.lazy_store import LazyImageStore, Shard
from ddpm_kedro.provenance import Provenance
from tests.ingestion.shards import FakeShard

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 4, 5, 3), dtype=np.uint8)


def shard(first: int) -> Shard:
    return Shard(IMAGES[first : first + 10], np.arange(10) % 2)


SHARDS = [FakeShard(partial(shard, first)) for first in (0, 10, 20)]
LAZY = LazyImageStore(Provenance({"a": 1}, {}), ("ant", "bee"), lambda: SHARDS)
OTHER = replace(LAZY, made_by=Provenance({"a": 2}, {}), shards=lambda: SHARDS[1:2])
NOTHING = replace(LAZY, shards=lambda: pytest.fail("decoded again"))


@pytest.fixture(params=["memory", "file"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield "memory://bucket/store" if request.param == "memory" else f"file://{tmp_path}/shared/store"
    files = fsspec.filesystem("memory")
    if files.exists("/bucket"):
        files.rm("/bucket", recursive=True)


def host(name: str, remote: str, tmp_path: Path) -> RemoteImageStoreDataset:
    return RemoteImageStoreDataset(filepath=str(tmp_path / name), remote=remote)


def test_a_store_ingested_by_one_host_is_loaded_by_another(remote: str, tmp_path: Path) -> None:
    one, other = host("one", remote, tmp_path), host("other", remote, tmp_path)
    assert not other.exists()
    one.save(LAZY)
    assert other.exists()
    loaded = other.load()
    assert np.array_equal(loaded.images[:], IMAGES)
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [*range(2)] * 15
    assert other.fingerprint() == one.fingerprint()
    host("third", remote, tmp_path).save(NOTHING)  # what is there is not made again
    assert sorted(path.name for path in (tmp_path / "third").iterdir()) == sorted(
        path.name for path in (tmp_path / "one").iterdir()
    )


def test_descriptions_and_errors_have_no_password(tmp_path: Path) -> None:
    dataset = RemoteImageStoreDataset(
        filepath=str(tmp_path / "one"), remote="memory://me:pa55word@bucket/store?key=s3c"
    )
    assert "memory://bucket/store" in str(dataset)
    for text in (str(dataset), repr(dataset), str(dataset._describe())):
        assert "pa55word" not in text
        assert "s3c" not in text
    with pytest.raises(DatasetError) as error:
        dataset.load()
    assert "pa55word" not in str(error.value)


def test_a_copy_is_downloaded_once(remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = host("one", remote, tmp_path), host("other", remote, tmp_path)
    one.save(LAZY)
    other.load()
    monkeypatch.setattr(other._files, "get_file", lambda *_: pytest.fail("downloaded again"))
    assert len(other.load()) == 30


def test_processes_of_one_host_download_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = f"file://{tmp_path}/shared/store"
    host("one", remote, tmp_path).save(LAZY)
    both = [host("other", remote, tmp_path) for _ in range(2)]
    downloaded, get = list[str](), both[0]._files.get_file

    def slow(there: str, here: str) -> None:
        downloaded.append(Path(there).name)
        time.sleep(0.02)
        get(there, here)

    for each in both:
        monkeypatch.setattr(each._files, "get_file", slow)
    with ThreadPoolExecutor() as pool:
        assert [len(store) for store in pool.map(lambda each: each.load(), both)] == [30, 30]
    assert len(downloaded) == len(set(downloaded))


def test_a_new_store_replaces_the_earlier_one_everywhere(remote: str, tmp_path: Path) -> None:
    one, other = host("one", remote, tmp_path), host("other", remote, tmp_path)
    one.save(LAZY)
    other.load()
    one.save(OTHER)
    assert np.array_equal(other.load().images[:], IMAGES[10:20])
    names = {Path(name).name for name in one._files.ls(one._root, detail=False)}
    assert names == {path.name for path in (tmp_path / "one").iterdir()}


def test_an_incomplete_upload_does_not_count(remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = host("one", remote, tmp_path), host("other", remote, tmp_path)
    one.save(LAZY)
    put, times = one._files.put_file, iter(range(99))

    def broken(*given: Any) -> None:
        if next(times) == 1:
            raise ConnectionError("gone")
        put(*given)

    monkeypatch.setattr(one._files, "put_file", broken)
    with pytest.raises(DatasetError, match="gone"):
        one.save(OTHER)
    with pytest.raises(DatasetError, match="No images in"):
        other.load()
    one.save(replace(OTHER, shards=NOTHING.shards))  # what lies here is put there
    assert len(other.load()) == 10


def test_an_interrupted_download_keeps_the_earlier_copy(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = host("one", remote, tmp_path), host("other", remote, tmp_path)
    one.save(LAZY)
    other.load()
    before = {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()}
    one.save(OTHER)

    def broken(*_: Any) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(other._files, "get_file", broken)
    with pytest.raises(DatasetError, match="gone"):
        other.load()
    assert {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()} == before
