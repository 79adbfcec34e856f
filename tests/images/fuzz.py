"""Files and archives damaged at random: whatever they hold, they are decoded or rejected, and nothing else happens.

``python -m tests.images.fuzz --minutes 10`` says which seed led to what, where something does; ``--seed N`` repeats it.
"""

import argparse
import io
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

from ddpm_kedro.images.decoding import RejectedImageError, Wanted, decode, look
from ddpm_kedro.images.listing import listing_of
from ddpm_kedro.images.own import make_shard
from ddpm_kedro.parameters import UserError
from tests.images import corpus

WANTED = Wanted(8, 12, 3, "crop", (255, 255, 255), 1_000_000)
FILES = [make() for make in corpus.GOOD.values()] + [make() for make, _ in corpus.BAD.values()]
INTERESTING = np.array([0, 1, 7, 8, 16, 32, 64, 127, 128, 254, 255], dtype=np.uint8)


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, cut out, doubled, or taken from another file; a few times."""
    changed = bytearray(data or b"\0")
    for _ in range(rng.integers(1, 8)):
        at, length = int(rng.integers(0, len(changed))), int(rng.integers(1, 24))
        kind = rng.integers(0, 6)
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            changed[at] = int(rng.choice(INTERESTING))
        elif kind == 2:
            changed[at : at + 4] = rng.integers(0, 256, 4, dtype=np.uint8).tobytes()
        elif kind == 3 and len(changed) > length + 1:
            del changed[at : at + length]
        elif kind == 4:
            changed[at:at] = changed[at : at + length]
        else:
            other = FILES[int(rng.integers(0, len(FILES)))]
            begin = int(rng.integers(0, max(1, len(other))))
            changed[at : at + length] = other[begin : begin + length]
        changed = changed or bytearray(b"\0")
    return bytes(changed)


def file_is_decoded_or_rejected(seed: int) -> str:
    """What became of a file."""
    rng = np.random.default_rng(seed)
    data = damaged(FILES[int(rng.integers(0, len(FILES)))], rng)
    try:
        image = decode(data, WANTED).pixels
        look(data)
    except RejectedImageError as why:
        return str(why)
    assert (image.shape, image.dtype) == ((8, 12, 3), np.uint8)
    return "a picture"


def archive(kind: str, rng: np.random.Generator) -> bytes:
    """With some of the files."""
    file, chosen = io.BytesIO(), [FILES[int(index)] for index in rng.integers(0, len(FILES), 4)]
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
            for number, data in enumerate(chosen):
                made.writestr(f"{number % 2}/{number}.png", data)
    else:
        with tarfile.open(fileobj=file, mode="w") as made:
            for number, data in enumerate(chosen):
                member = tarfile.TarInfo(f"{number % 2}/{number}.png")
                member.size = len(data)
                made.addfile(member, io.BytesIO(data))
    return file.getvalue()


def archive_is_read_or_refused(seed: int) -> str:
    """What became of an archive."""
    rng = np.random.default_rng(seed)
    kind = ("zip", "tar")[seed % 2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "archive"
        path.write_bytes(damaged(archive(kind, rng), rng))
        try:
            listing = listing_of(path)
        except UserError as error:
            return f"{kind}: {str(error).partition(str(path))[2][:12]}"
        shard = make_shard(path, listing, WANTED)
        assert len(shard.images) + len(shard.rejected) == len(listing)
        assert list(Path(folder).iterdir()) == [path]
        return f"{kind}: read"


def main(words: list[str]) -> None:
    """Until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help="the first")
    given = parser.parse_args(words)
    end, seed, became = time.monotonic() + 60 * given.minutes, given.seed, Counter[str]()
    while time.monotonic() < end:
        for check in (file_is_decoded_or_rejected, archive_is_read_or_refused):
            try:
                became[check(seed)] += 1
            except BaseException:
                print(f"seed {seed}, {check.__name__}", file=sys.stderr)
                raise
        seed += 1
    for what, count in became.most_common():
        print(f"{count:>9,}  {what}")


if __name__ == "__main__":
    main(sys.argv[1:])
