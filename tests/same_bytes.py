"""Compare the bytes that this working tree and another commit make: ``python -m tests.same_bytes REV``.

Both run with this interpreter: the main job of the ``smoke`` environment and, with ``--whole``, of the default one
(minutes), and the ingestion of a folder, an archive and an array of images. Weights, samples, shards, labels and run
ids are compared, one line each. The exit status is 1 if one of them differs.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
COMPARED = (
    "05_model_input/*_images/*.npy",
    "06_models/model/model.safetensors",
    "07_model_output/samples.npz",
    "07_model_output/samples.png",
)
SMOKE = ("--env", "smoke")
DEFAULT = ("--params", "tracking.mode=disabled")


@contextmanager
def checked_out(revision: str, folder: Path) -> Iterator[Path]:
    """A git worktree of a commit, removed afterwards."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def write_sources(folder: Path) -> dict[str, tuple[str, ...]]:
    """Write images as a folder, an archive and an array, and return the arguments that ingest each of them."""
    rng = np.random.default_rng(0)
    files = {}
    for number in range(60):
        height, width = rng.integers(16, 40, 2)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        kind = ("png", "jpeg")[number % 2]
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        files[f"{('circles', 'squares', 'stars')[number % 3]}/{number}.{kind}"] = file.getvalue()
    files["circles/broken.png"] = b"not an image"
    for name, content in files.items():
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    images = rng.integers(0, 256, (80, 20, 24, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(80) % 4)
    paths = {"folder": "images", "archive": "images.zip", "array": "images.npz"}
    return {
        source: (
            *SMOKE,
            "--pipelines",
            "data_ingestion",
            "--params",
            f"use.dataset={source},dataset.path={folder / path}",
        )
        for source, path in paths.items()
    }


def start(tree: Path, folder: Path, arguments: tuple[str, ...]) -> "subprocess.Popen[str]":
    """Start the code and the configuration of a tree in a folder of its own."""
    shutil.copytree(tree / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "conf/local").mkdir()
    shutil.copy(tree / "pyproject.toml", folder)
    (folder / "src").mkdir()
    # Both commits run side by side: with several threads each, they would wait for each other.
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ddpm_kedro", *arguments]
    pipes: dict[str, int] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes)


def results(data: Path) -> dict[str, bytes]:
    """Return what is compared, by name."""
    found = {str(path.relative_to(data)): path.read_bytes() for each in COMPARED for path in data.glob(each)}
    for path in data.glob("06_models/model/config.json"):
        found["run id"] = json.loads(path.read_text())["run_id"].encode()
    return found | {f"runs/{path.name}": b"" for path in data.glob("runs/*")}


def compare(name: str, trees: tuple[Path, Path], folder: Path, arguments: tuple[str, ...]) -> bool:
    """Run a command in both trees at the same time, print a line per result, and return whether all are equal."""
    places = [folder / name / side for side in ("this", "other")]
    processes = [start(tree, place, arguments) for tree, place in zip(trees, places, strict=True)]
    for process, tree in zip(processes, trees, strict=True):
        output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{name}: the run of {tree} failed:\n{output}")
    this, other = (results(place / "data" / ("smoke" if SMOKE[0] in arguments else "")) for place in places)
    for key in sorted(this | other):
        missing = "only in the other commit" if key not in this else "only in this tree"
        verdict = (
            missing if key not in this or key not in other else "equal" if this[key] == other[key] else "DIFFERENT"
        )
        print(f"{verdict:9}  {name}: {key}", flush=True)
    return bool(this) and this == other


def main() -> None:
    """Compare, and exit with status 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="the commit to compare with")
    parser.add_argument("--whole", action="store_true", help="also run the default main job, which takes minutes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, checked_out(arguments.revision, Path(name, "commit")) as commit:
        commands = {"smoke": SMOKE, **write_sources(Path(name))}
        if arguments.whole:
            commands["default"] = DEFAULT
        equal = [compare(each, (ROOT, commit), Path(name, "runs"), words) for each, words in commands.items()]
    print("All results are equal." if all(equal) else "RESULTS DIFFER.")
    raise SystemExit(not all(equal))


if __name__ == "__main__":
    main()
