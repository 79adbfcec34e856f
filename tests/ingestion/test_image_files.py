"""Image files in folders and archives: listed, split, decoded and stored."""

import errno
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kedro.io import DatasetError
from PIL import Image

from ddpm_kedro.datasets.image_store import ImageStoreDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion.collection import ImageFormat
from ddpm_kedro.ingestion.containers import PROBLEMS, FolderReader, walk
from ddpm_kedro.ingestion.image_files import ImageFiles
from ddpm_kedro.ingestion.lazy_store import EncodedShard, LazyImageStore, Shard, cut_into_shards
from ddpm_kedro.ingestion.listing import Listing, list_files, printable
from ddpm_kedro.ingestion.probing import choose_format, probe_images
from ddpm_kedro.ingestion.registry import find_source
from ddpm_kedro.ingestion.splitting import Rows, split_holdout
from ddpm_kedro.parameters import DatasetParameters
from ddpm_kedro.pipelines.data_ingestion.nodes import prepare_images
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.session import explain
from tests.conftest import IMAGES, ROOT, changed
from tests.ingestion import corpus, fuzz
from tests.ingestion.shards import FakeShard

FORMAT = ImageFormat(8, 12, 3, "crop", (255, 255, 255), 50_000_000)


def names(listing: Listing) -> list[str]:
    return [printable(listing.name(index)) for index in range(len(listing))]


def decoded(path: Path, listing: Listing | None = None) -> Shard:
    """Return all images of a folder or archive."""
    return EncodedShard(ImageFiles(path, listing or list_files(path)), FORMAT).decode()


def reasons(path: Path) -> dict[str, str]:
    return dict(decoded(path).rejected)


def members(path: Path, files: dict[str, bytes]) -> Path:
    """Write an archive with these files, of the kind that its name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def folder_of(top: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    return top


CLASSES = {
    f"{name}/{number}.png": corpus.picture(mode=mode)
    for name, mode in (("cat", "L"), ("ant", "RGB"))
    for number in range(3)
}


def anywhere(kind: str, tmp_path: Path, files: dict[str, bytes]) -> Path:
    return folder_of(tmp_path / "top", files) if kind == "folder" else members(tmp_path / f"top.{kind}", files)


def stored(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def small_shards(top: Path, each: int = 6, **more: Any) -> LazyImageStore:
    """Return a store of all images of a folder, with few images per shard."""
    listing = list_files(top)
    rows = np.arange(len(listing))
    images = ImageFiles(top, listing)
    shards = [EncodedShard(images.take(rows[at : at + each]), FORMAT) for at in range(0, len(rows), each)]
    return LazyImageStore(Provenance({}, {"raw": listing.digest}), ("a", "b"), lambda: shards, **more)


def test_a_store_killed_twenty_times_equals_one_never_killed(tmp_path: Path) -> None:
    files = {f"{name}/{number}.png": corpus.picture() for name in "ab" for number in range(90)}
    lazy = small_shards(folder_of(tmp_path / "top", files))
    whole, killed = (ImageStoreDataset(filepath=str(tmp_path / name)) for name in ("whole", "killed"))
    start = time.monotonic()
    whole.save(lazy)
    taken, rng, kills = time.monotonic() - start, random.Random(0), 0
    while kills < 20:
        process = os.fork()
        if process == 0:
            killed.save(lazy)
            os._exit(0)
        time.sleep(rng.uniform(0, taken / 3))
        os.kill(process, signal.SIGKILL)
        kills += os.WIFSIGNALED(os.waitpid(process, 0)[1])
        if killed.exists():  # it came to its end: once more from the beginning
            assert stored(tmp_path / "killed").items() >= stored(tmp_path / "whole").items()
            shutil.rmtree(tmp_path / "killed")
    killed.save(lazy)
    assert stored(tmp_path / "killed") == stored(tmp_path / "whole")


def decode_slowly(folder: str) -> None:
    """Decode for ten minutes; a file has the number of the process."""
    Path(f"{folder}.{os.getpid()}").touch()
    time.sleep(600)


def save_slowly(folder: str) -> None:
    """Decode for ten minutes per shard, in two processes."""
    slow = LazyImageStore(Provenance({}, {}), (), lambda: [FakeShard(partial(decode_slowly, folder))] * 3, 2)
    ImageStoreDataset(filepath=folder).save(slow)


def test_ctrl_c_ends_all_processes_at_once(tmp_path: Path) -> None:
    log, code = tmp_path / "log.txt", f"from {__name__} import save_slowly; save_slowly({str(tmp_path / 'store')!r})"
    with log.open("w") as file:
        given: dict[str, Any] = {"cwd": ROOT, "stdout": file, "stderr": file, "start_new_session": True}
        process = subprocess.Popen([sys.executable, "-c", code], **given)
    while len(list(tmp_path.glob("store.*"))) < 2:
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(300)  # of the 600 s that a shard takes
    said = " ".join(log.read_text().split())
    assert "Stopped. 0 files are done;" in said
    assert said.endswith("KeyboardInterrupt")  # and not that a process was killed


def test_a_save_resumes_after_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = small_shards(folder_of(tmp_path / "top", CLASSES), each=1)
    full, whole = (ImageStoreDataset(filepath=str(tmp_path / name)) for name in ("full", "whole"))
    whole.save(lazy)
    room = iter(range(5))

    def fsync(_: int) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(DatasetError) as raised:
            full.save(lazy)
    said = explain(raised.value)
    assert said is not None
    assert said.startswith(str(tmp_path / ".full.new"))
    assert " cannot be read or written: No space left on device. " in said
    assert not full.exists()
    made = set(stored(tmp_path / ".full.new"))
    assert made < set(stored(tmp_path / "whole")) | {"unfinished.json"}
    assert len(made) > 2
    full.save(lazy)
    assert stored(tmp_path / "full") == stored(tmp_path / "whole")


CHANGES: dict[str, Callable[[Path], Any]] = {
    "one more": lambda top: (top / "a/new.png").write_bytes(b""),
    "some gone": lambda top: (top / "a").rename(top / "c"),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_images_that_change_while_they_are_read_are_not_stored(change: str, tmp_path: Path) -> None:
    files = {f"{name}/{number}.png": corpus.picture() for name in "ab" for number in range(30)}
    top = folder_of(tmp_path / "top", files)
    source = find_source("folder")
    given = {"source": "folder", "download_folder": "", "path": str(top), "classes": None, "sha256": None}
    manifest = {"source": "folder"} | source.fetch(DatasetParameters(**given))
    [training, _] = prepare_images(manifest, changed(IMAGES, workers=0, max_rejected_fraction=0.99))
    dataset = ImageStoreDataset(filepath=str(tmp_path / "store"))

    def meanwhile() -> Any:
        yield from training.shards()
        CHANGES[change](top)

    with pytest.raises(DatasetError, match=r"changed while they were read. Run it again when all are there"):
        dataset.save(replace(training, shards=meanwhile))
    assert not dataset.exists()


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("above", ["", "set/", "set/train/"])
def test_subfolders_are_classes(kind: str, above: str, tmp_path: Path) -> None:
    path = anywhere(kind, tmp_path, {above + name: data for name, data in CLASSES.items()})
    listing = list_files(path)
    assert listing.class_names == ("ant", "cat")
    shard = decoded(path, listing)
    assert shard.images.shape == (6, 8, 12, 3)
    assert not shard.rejected
    for name, label, image in zip(shard.names, shard.labels, shard.images, strict=True):
        assert name.startswith(f"{above}{listing.class_names[label]}/")
        assert (np.ptp(image, axis=-1).max() == 0) == (label == 1)  # cats are grey


@pytest.mark.parametrize(
    "files",
    [
        {"1.png": b"x", "2.png": b"x"},
        {"a/1.png": b"x", "2.png": b"x"},
        {"a/b/c/d/e/f/1.png": b"x"},
    ],
    ids=["flat", "mixed", "one folder"],
)
@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_images_in_one_folder_have_no_classes(files: dict[str, bytes], kind: str, tmp_path: Path) -> None:
    listing = list_files(anywhere(kind, tmp_path, files))
    assert listing.class_names == ()
    assert set(listing.labels) == {-1}
    assert len(listing) == len(files)


def test_files_of_a_folder_are_decoded_or_rejected_with_a_reason(tmp_path: Path) -> None:
    top = tmp_path / "top"
    corpus.write(top)
    corpus.write_special(top)
    expected = {name: reason for name, (_, reason) in [*corpus.BAD.items(), *corpus.SPECIAL.items()]}
    shard = decoded(top)
    found = dict(shard.rejected)
    assert set(found) == {printable(os.fsencode(name)) for name in expected}
    assert all(re.fullmatch(f"({expected[name]}).*", reason) for name, reason in found.items())
    taken = {printable(os.fsencode(name)) for name in corpus.GOOD} | {"not-\\xff-utf8.png"}
    assert set(shard.names) == taken
    assert "two\\nlines.png" in taken
    assert list_files(top).skipped_count == len(corpus.OTHERS) + 1  # and a link to the folder itself


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_folders_of_names_that_lead_out_are_no_classes(kind: str, tmp_path: Path) -> None:
    evil = {"../up.png": corpus.picture(), "/etc/root.png": corpus.picture(), "ant/../../b.png": corpus.picture()}
    listing = list_files(members(tmp_path / f"evil.{kind}", {f"top/{name}": CLASSES[name] for name in CLASSES} | evil))
    assert listing.class_names == ("ant", "cat")
    assert sorted(listing.labels) == [-1] * 3 + [0] * 3 + [1] * 3


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archive_members_that_lead_out_are_rejected(kind: str, tmp_path: Path) -> None:
    files = {"../up.png": corpus.picture(), "/etc/root.png": corpus.picture(), "a/../../b.png": corpus.picture()}
    path = members(tmp_path / f"bad.{kind}", files | {"good.png": corpus.picture()})
    assert reasons(path) == dict.fromkeys(files, "its name leads out")
    assert not (tmp_path.parent / "up.png").exists()


FORMATS = {"gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.mark.parametrize("form", list(FORMATS))
def test_members_of_each_tar_format_are_found(form: str, tmp_path: Path) -> None:
    path, long = tmp_path / "top.tar", "/".join(["folder" * 5] * 4)  # 123 bytes: more than ustar has for a name
    names = ["a/1.png", "a/empty.png", "b/text.txt", f"{long}/2.png", "../out.png"]
    with tarfile.open(path, "w", format=FORMATS[form]) as archive:
        archive.addfile(_member("a", b"", type=tarfile.DIRTYPE))
        for number, name in enumerate(names):
            content = b"x" * (511 * number)
            archive.addfile(_member(name, content, mtime=10**9 + number), io.BytesIO(content))
    found = list(walk(path))
    assert [file.name.decode() for file in found] == names
    assert [(file.size, file.stamp) for file in found] == [(511 * number, 10**9 + number) for number in range(5)]
    assert [file.problem for file in found] == [""] * 4 + ["its name leads out"]


def _member(called: str, content: bytes, **more: Any) -> tarfile.TarInfo:
    member = tarfile.TarInfo(called)
    member.size = len(content)
    for key, value in more.items():
        setattr(member, key, value)
    return member


@pytest.mark.parametrize(
    "more",
    [
        {"name": "long" * 60},
        {"name": "ü.png"},
        {"mtime": 1.5},
        {"type": tarfile.SYMTYPE, "linkname": "x"},
        {"type": tarfile.CHRTYPE},
        {"uid": 2**40},
    ],
    ids=lambda more: next(iter(more)),
)
def test_members_with_extended_headers_are_found(more: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "top.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(_member("a.png", b""))
        archive.addfile(_member("b.png", b"", **more))
    assert [found.name for found in walk(path)] == [b"a.png", more.get("name", "b.png").encode()]


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_changed_files_have_another_digest(kind: str, tmp_path: Path) -> None:
    path = anywhere(kind, tmp_path, {"1.png": b"x"})
    before = list_files(path).digest
    assert list_files(path).digest == before
    assert list_files(anywhere(kind, tmp_path, {"1.png": b"xy"})).digest != before  # its size
    assert list_files(anywhere(kind, tmp_path, {"2.png": b"x"})).digest != before
    if kind == "folder":
        (path / "2.png").unlink()
        (path / "1.png").write_bytes(b"x")
        os.utime(path / "1.png", (1, 1))
        assert list_files(path).digest != before


def test_hidden_folders_are_skipped(tmp_path: Path) -> None:
    hidden = {".Trash/x/1.png": b"x", ".thumbnails/2.png": b"x", "ant/.3.png": b"x"}
    for kind in ("folder", "zip"):
        listing = list_files(anywhere(kind, tmp_path, CLASSES | hidden))
        assert listing.class_names == ("ant", "cat")
        assert len(listing) == len(CLASSES)


def test_an_unreadable_folder_hides_no_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = folder_of(tmp_path / "top", CLASSES)
    (top / "lost+found").mkdir()
    scandir = os.scandir

    def refused(path: bytes) -> Any:
        if path.endswith(b"lost+found"):
            raise PermissionError(errno.EACCES, "no")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    listing = list_files(top)
    assert listing.class_names == ("ant", "cat")
    assert reasons(top) == {"lost+found": "the folder cannot be read"}
    monkeypatch.setattr(os, "scandir", lambda _: refused(b"lost+found"))
    with pytest.raises(UserError, match=r"No permission to read the folder dataset.path = .*top\."):
        list_files(top)


def test_a_changed_permission_changes_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = folder_of(tmp_path / "top", CLASSES)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, _: not path.endswith(b"ant/0.png"))
        before = list_files(top)
        assert reasons(top) == {"ant/0.png": "it may not be read"}
    assert list_files(top).digest != before.digest


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError()])
def test_errors_of_the_machine_end_the_run(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> bytes:
        raise error

    top = folder_of(tmp_path / "top", CLASSES)
    monkeypatch.setattr(FolderReader, "read", read)
    with pytest.raises(type(error)):
        decoded(top)


def test_links_and_devices_of_an_archive_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE),
                           ("device", tarfile.CHRTYPE)):  # fmt: skip
            member = tarfile.TarInfo(f"{name}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert set(reasons(path).values()) == {"it is no regular file"}


def test_encrypted_and_damaged_zip_members_are_rejected(tmp_path: Path) -> None:
    path = members(tmp_path / "bad.zip", {"1.png": corpus.noise(300), "2.png": corpus.picture()})
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF  # in the first member
    path.write_bytes(data)
    assert set(reasons(path)) == {"1.png"}
    begin = data.index(b"PK\x01\x02")
    data[begin + 8] |= 1
    path.write_bytes(data)
    assert reasons(path)["1.png"] == "it is encrypted"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b"hello"), "neither a folder nor a complete .zip"),
        (lambda path: path.mkdir(), "There is no image"),
        (lambda path: folder_of(path, {"a.txt": b""}), r"but files with other names \(1\)"),
        (lambda path: path.write_bytes(b"PK"), "neither a folder nor a complete .zip"),
    ],
)
def test_paths_without_images_are_refused(make: object, message: str, tmp_path: Path) -> None:
    make(tmp_path / "pictures")  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        list_files(tmp_path / "pictures")


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = members(tmp_path / "cut.tar", CLASSES)
    data = path.read_bytes()
    path.write_bytes(data[:512] + b"x" * 20 + data[532:3000])
    with pytest.raises(UserError, match=r"cut\.tar is damaged"):
        list_files(path)


def test_a_file_that_disappears_or_shrinks_is_rejected(tmp_path: Path) -> None:
    top = folder_of(tmp_path / "top", CLASSES)
    listing = list_files(top)
    (top / "ant/0.png").unlink()
    (top / "ant/1.png").write_bytes(b"x")
    found = dict(decoded(top, listing).rejected)
    assert found == {"ant/0.png": "it is gone", "ant/1.png": "it is cut short"}
    manifest = {"folder": str(top), "class_names": listing.class_names}
    with pytest.raises(UserError, match="changed while they were read"):
        find_source("folder").check(manifest | {"sha256": {"top": listing.digest}})
    images, _ = find_source("folder").open(manifest | {"sha256": {"top": list_files(top).digest}})
    assert images.class_names == listing.class_names


def test_a_file_that_may_not_be_read_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = folder_of(tmp_path / "top", CLASSES)

    def refuse(path: object, mode: str) -> object:
        raise PermissionError(path)

    monkeypatch.setattr("ddpm_kedro.ingestion.containers.open", refuse, raising=False)
    assert set(reasons(top).values()) == {"it may not be read"}


def split(listing: Listing, fraction: float, seed: int) -> tuple[Rows, Rows]:
    images = changed(IMAGES, holdout_fraction=fraction, seed=seed)
    return split_holdout(ImageFiles(Path(), listing), images, classes=False)


def test_added_files_do_not_move_others_between_parts(tmp_path: Path) -> None:
    top = folder_of(tmp_path / "top", {f"{number}.png": b"x" for number in range(400)})
    before = list_files(top)
    training, holdout = split(before, 0.1, 0)
    assert len(training) + len(holdout) == 400
    assert 20 <= len(holdout) <= 60
    assert not set(training) & set(holdout)
    held = {before.name(index) for index in holdout}
    folder_of(top, {f"+{number}.png": b"x" for number in range(100)})  # they are listed before the others
    after = list_files(top)
    still = {after.name(index) for index in split(after, 0.1, 0)[1] if not after.name(index).startswith(b"+")}
    assert still == held
    assert {before.name(index) for index in split(before, 0.1, 1)[1]} != held
    with pytest.raises(UserError, match="holds out 0 of 400"):
        split(before, 1e-9, 0)


def test_size_and_channels_are_chosen_from_the_probes(tmp_path: Path) -> None:
    small = folder_of(tmp_path / "small", {"1.png": corpus.picture(), "2.png": corpus.picture()})
    seen = probe_images(ImageFiles(small, list_files(small)))
    assert seen == [[8, 12, 3, 2]]
    chosen = choose_format(seen, IMAGES)
    assert (chosen.height, chosen.width, chosen.channels) == (8, 12, 3)
    chosen = choose_format([[480, 640, 3, 5], [50, 700, 1, 4]], IMAGES)
    assert (chosen.height, chosen.width, chosen.channels) == (64, 64, 3)
    chosen = choose_format([[40, 640, 1, 5]], IMAGES)
    assert (chosen.height, chosen.width, chosen.channels) == (32, 32, 1)
    chosen = choose_format([[40, 640, 1, 5]], changed(IMAGES, size=(20, 30), channels=4))
    assert (chosen.height, chosen.width, chosen.channels) == (20, 30, 4)
    with pytest.raises(UserError, match="None of the images probed"):
        choose_format([], IMAGES)


def test_shards_together_are_all_images_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpm_kedro.ingestion.lazy_store.SHARD_BYTES", 4 * 8 * 12 * 3)
    top = folder_of(tmp_path / "top", CLASSES | {"bee/broken.png": b"x"})
    listing = list_files(top)
    made = [shard.decode() for shard in cut_into_shards(ImageFiles(top, listing), np.arange(len(listing)), FORMAT)]
    whole = decoded(top, listing)
    assert [len(shard.images) + len(shard.rejected) for shard in made] == [4, 3]
    assert np.array_equal(np.concatenate([shard.images for shard in made]), whole.images)
    assert np.concatenate([shard.labels for shard in made]).tolist() == whole.labels.tolist()
    assert tuple(name for shard in made for name in shard.names) == whole.names


def test_formats_and_sizes_of_all_files_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpm_kedro.ingestion.lazy_store.SHARD_BYTES", 2 * 8 * 12 * 3)
    tall, wide = Image.new("L", (31, 70)), Image.new("RGB", (64, 32))
    files = {f"{number}.png": corpus.picture() for number in range(3)}
    files |= {"tall.png": corpus.saved(tall, "PNG"), "wide.jpg": corpus.saved(wide, "JPEG"), "broken.png": b"x"}
    top = folder_of(tmp_path / "top", files)
    listing = list_files(top)
    dataset = ImageStoreDataset(filepath=str(tmp_path / "store"))
    shards = partial(cut_into_shards, ImageFiles(top, listing), np.arange(6), FORMAT)
    dataset.save(LazyImageStore(Provenance({}, {}), (), shards, 0, 0.5))
    assert dataset.load().statistics["originals"] == {
        "kinds": {"PNG RGB": 3, "PNG L": 1, "JPEG RGB": 1},
        "treatments": {},
        "shorter_side": {"8 to 15": 3, "16 to 31": 1, "32 to 63": 1},
        "smallest": {"height": 8, "width": 12},
        "largest": {"height": 70, "width": 31},  # more pixels than 32×64
    }


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_workers_write_the_same_bytes(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpm_kedro.ingestion.lazy_store.SHARD_BYTES", 2 * 8 * 12 * 3)
    path = anywhere(kind, tmp_path, CLASSES | {"bee/broken.png": b"x"})
    listing = list_files(path)
    contents = []
    for workers in (0, 2):
        folder = tmp_path / f"store-{workers}"
        made_by = Provenance({}, {"raw_images": listing.digest})
        shards = partial(cut_into_shards, ImageFiles(path, listing), np.arange(7), FORMAT)
        lazy = LazyImageStore(made_by, listing.class_names, shards, workers, 0.5)
        ImageStoreDataset(filepath=str(folder)).save(lazy)
        contents.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert contents[0] == contents[1]
    assert sum(name.endswith(".json") for name in contents[0]) == 4 + 1  # of each shard, and the store


def test_problems_are_distinct() -> None:
    assert len(set(PROBLEMS)) == len(PROBLEMS) < 128


@pytest.mark.parametrize("check", fuzz.CHECKS)
def test_files_damaged_at_random_are_decoded_or_rejected(check: Callable[[bytes], str]) -> None:
    """Run for a short time; ``python -m tests.ingestion.fuzz`` runs longer."""
    became = fuzz.tried(check, number=0, examples=300)
    assert len(became) > 3
    assert sum(became.values()) >= 300
