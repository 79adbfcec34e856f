"""Files and archives damaged at random are decoded or rejected, and nothing else happens.

``python -m tests.ingestion.fuzz --minutes 10`` shows the smallest damage that leads to something else, if any, and the
seed, which ``--seed N`` repeats.
"""

import argparse
import io
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion.collection import ImageFormat, RejectedImageError
from ddpm_kedro.ingestion.decoding import decode, inspect, probe, without_warnings
from ddpm_kedro.ingestion.image_files import ImageFiles
from ddpm_kedro.ingestion.lazy_store import EncodedShard
from ddpm_kedro.ingestion.listing import list_files
from tests.ingestion import corpus

FORMAT = ImageFormat(8, 12, 3, "crop", (255, 255, 255), 1_000_000)
FILES = [make() for make in corpus.GOOD.values()] + [make() for make, _ in corpus.BAD.values()]
INTERESTING = [0, 1, 7, 8, 16, 32, 64, 127, 128, 254, 255]
EXAMPLES = 2_000  # of one seed

Edit = Callable[[bytes], bytes]


def overwritten(data: bytes, at: int, by: bytes) -> bytes:
    at %= len(data)
    return data[:at] + by + data[at + len(by) :]


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return overwritten(data, at, bytes([data[at % len(data)] ^ 1 << bit]))


def without(data: bytes, at: int, length: int) -> bytes:
    at %= len(data)
    return data[:at] + data[at + length :]


def twice(data: bytes, at: int, length: int) -> bytes:
    at %= len(data)
    return data[: at + length] + data[at:]


def spliced(data: bytes, at: int, length: int, other: bytes, begin: int) -> bytes:
    begin %= len(other) or 1
    return overwritten(data, at, other[begin : begin + length])


def edits() -> st.SearchStrategy[Edit]:
    """Return one small damage."""
    at, length = st.integers(0, 2**14), st.integers(1, 24)

    def some(edit: Callable[..., bytes], **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Edit]:
        return st.builds(partial, st.just(edit), at=at, **given)

    return st.one_of(
        some(flipped, bit=st.integers(0, 7)),
        some(overwritten, by=st.sampled_from(INTERESTING).map(lambda value: bytes([value]))),
        some(overwritten, by=st.binary(min_size=4, max_size=4)),
        some(without, length=length),
        some(twice, length=length),
        some(spliced, length=length, other=st.sampled_from(FILES), begin=at),
    )


def damaged(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Return files with a few damages."""

    def all_of(data: bytes, some: list[Edit]) -> bytes:
        for edit in some:
            data = edit(data or b"\0")
        return data

    return st.builds(all_of, whole, st.lists(edits(), min_size=1, max_size=8))


def archive(kind: str, files: list[bytes]) -> bytes:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
            for number, data in enumerate(files):
                made.writestr(f"{number % 2}/{number}.png", data)
    else:
        with tarfile.open(fileobj=file, mode="w") as made:
            for number, data in enumerate(files):
                member = tarfile.TarInfo(f"{number % 2}/{number}.png")
                member.size = len(data)
                made.addfile(member, io.BytesIO(data))
    return file.getvalue()


def file_is_decoded_or_rejected(data: bytes) -> str:
    """Decode a file; return the result."""
    try:
        with without_warnings():
            image = decode(data, FORMAT).pixels
            probe(data)
            inspect(data)
    except RejectedImageError as why:
        return str(why)
    assert (image.shape, image.dtype) == ((8, 12, 3), np.uint8)
    return "an image"


def archive_is_read_or_refused(data: bytes) -> str:
    """Read an archive; return the result."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "archive"
        path.write_bytes(data)
        try:
            listing = list_files(path)
        except UserError as error:
            return f"an archive: {str(error).partition(str(path))[2].lstrip(' :;,')[:30]}"
        shard = EncodedShard(ImageFiles(path, listing), FORMAT).decode()
        assert len(shard.images) + len(shard.rejected) == len(listing)
        assert list(Path(folder).iterdir()) == [path]
        return "an archive: read"


SOME_FILES = st.lists(st.sampled_from(FILES), min_size=1, max_size=4)
CHECKS: dict[Callable[[bytes], str], st.SearchStrategy[bytes]] = {
    file_is_decoded_or_rejected: damaged(st.sampled_from(FILES)),
    archive_is_read_or_refused: damaged(st.builds(archive, st.sampled_from(["zip", "tar"]), SOME_FILES)),
}


def tried(check: Callable[[bytes], str], number: int, examples: int = EXAMPLES) -> Counter[str]:
    """Count the results of damaged files, of one seed.

    Raises:
        Exception: any other error that a file leads to, with the smallest such file.
    """
    became = Counter[str]()

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(data=CHECKS[check])
    def one(data: bytes) -> None:
        became[check(data)] += 1

    one()
    return became


def main(words: list[str]) -> None:
    """Run until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help="the first")
    given = parser.parse_args(words)
    end, became = time.monotonic() + 60 * given.minutes, Counter[str]()
    for number in count(given.seed):
        print(f"\rseed {number}", end="", file=sys.stderr, flush=True)
        for check in CHECKS:
            became += tried(check, number)
        if time.monotonic() > end:
            break
    print(file=sys.stderr)
    for what, times in became.most_common():
        print(f"{times:>9,}  {what}")


if __name__ == "__main__":
    main(sys.argv[1:])
