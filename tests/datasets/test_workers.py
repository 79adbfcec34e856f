"""Worker processes of ingestion end with their parent."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ddpm_kedro.ingestion.lazy_store import Shard
from tests.conftest import ROOT

INGESTION = """
import sys
from functools import partial
from ddpm_kedro.datasets.image_store import ImageStoreDataset
from ddpm_kedro.ingestion.lazy_store import LazyImageStore
from tests.conftest import MADE_BY
from tests.datasets.test_workers import decode_slowly
from tests.ingestion.shards import FakeShard

if __name__ == "__main__":
    shards = [FakeShard(partial(decode_slowly, sys.argv[1], number)) for number in range(8)]
    ImageStoreDataset(filepath=sys.argv[1]).save(LazyImageStore(MADE_BY, (), lambda: shards, workers=2))
"""


def decode_slowly(folder: str, number: int) -> Shard:
    """Return a shard after ten minutes, longer than the test waits; a file has the number of the process."""
    Path(f"{folder}.{os.getpid()}").touch()
    time.sleep(600)
    return Shard(np.full((1, 4, 4, 1), number, np.uint8), np.array([-1]))


def lives(process: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_end_when_the_ingestion_is_killed(tmp_path: Path) -> None:
    script, store = tmp_path / "ingest.py", tmp_path / "store"
    script.write_text(INGESTION)
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}  # the script imports this file
    process = subprocess.Popen([sys.executable, str(script), str(store)], env=env, stderr=subprocess.DEVNULL)
    while len(workers := [int(path.suffix[1:]) for path in tmp_path.glob("store.*") if path.suffix[1:].isdigit()]) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    end = time.monotonic() + 120
    while any(map(lives, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(lives, workers))
