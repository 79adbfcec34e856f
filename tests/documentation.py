"""The pages of the documentation, their commands, and the messages in the source."""

import ast
import re
from functools import cache
from pathlib import Path

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = FENCED.findall(TEXT)
PROGRAM = re.compile(
    r"^(?:[A-Z_]+=\S+ )*(?:kedro|make|dvc|git|docker|torchrun|python3|\S*/pip|wandb|sbatch|kubectl|export) "
)
NOT_RUN = {
    'git clone "$REPOSITORY" ddpm_kedro && cd ddpm_kedro': "the address belongs to the reader",
    "python3 -m venv .venv": "part of every installation, also of `make run`",
    ".venv/bin/pip install -c constraints.txt torch torchvision": "needs the network",
    "PYTHON=/opt/venv/bin/python make gpu": "needs a Python of the reader; .ci/run calls `make gpu`",
    "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1": "tests/test_distributed_docs.py asks for it",
    'export DDPM_USER="$(id -u):$(id -g)"': "sets a variable of compose.yaml",
    "docker compose ": "needs a network bridge and a GPU; tests/container parses compose.yaml",
    "docker run --gpus all --shm-size 2g": "needs GPUs; tests/integration/test_distributed.py runs torchrun",
    "docker run --rm -p 127.0.0.1:4141:4141": "needs a network bridge; tests/container starts Kedro-Viz without one",
    "sbatch docs/slurm.sh": "needs SLURM; tests/test_distributed_docs.py parses the script",
    "kubectl ": "needs Kubernetes; tests/test_distributed_docs.py validates the manifests",
    "wandb sync data/wandb/*-9807f43cc7aa": "needs an account; tests/hooks/test_tracking.py reads the offline files",
    "kedro run --params use.dataset=archive,dataset.path=https://": "tests/ingestion/test_downloading.py downloads",
    "kedro run --pipelines data_ingestion --params use.dataset=archive": "output of an example",
    "kedro run --params training.num_images=250_000": "output of an example",
    "kedro run --pipelines data_ingestion --params use.dataset=huggingface": "tests/ingestion/test_hugging_face.py",
    "kedro run --pipelines import_model": "tests/integration/test_diffusers.py imports a model",
    "kedro run --pipelines sampling,evaluation": "tests/integration/test_diffusers.py evaluates an imported model",
    "kedro run --params training.initial_model=": "tests/integration/test_diffusers.py starts from an imported model",
    "kedro run --pipelines evaluation --params evaluation.extractor=inception": "needs weights of 91 MB",
    "kedro run --pipelines evaluation --params evaluation.refit=true": "tests/datasets/test_kept_extractors.py refits",
    "kedro run --params use.model=digit": "test_documented_error_is_the_real_one",
    "CUDA_VISIBLE_DEVICES=1 kedro run --env second": "tests/integration/test_shared_images.py, on a CPU",
    "DDPM_KEDRO_WAIT=3600 kedro run": "tests/test_data_lock.py waits",
}
"""Beginnings of commands that no test of the pages runs, and the reason."""


def commands(program: str, text: str = TEXT) -> list[str]:
    """Return every command that begins with these words, in bash blocks and in running text."""
    lines = "\n".join(body for kind, body in FENCED.findall(text) if kind == "bash").splitlines()
    found = [line.split("  #")[0].strip() for line in lines] + re.findall(r"`([^`\n]+)`", text)
    return list(dict.fromkeys(command for command in found if command.startswith(program)))


def fenced_commands(text: str) -> list[str]:
    """Return every command in any fenced block, without prompts and comments."""
    blocks = "\n".join(body for kind, body in FENCED.findall(text) if kind in {"bash", "console", "text"})
    lines = blocks.replace("\\\n", " ").splitlines()
    return [line for each in lines if PROGRAM.match(line := each.removeprefix("$ ").split("  #")[0].strip())]


def not_run(command: str) -> bool:
    """Return whether a command is listed with a reason."""
    return any(command.startswith(beginning) for beginning in NOT_RUN)


@cache
def messages() -> str:
    """Return all string constants of the source, one per line, with … in place of values."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "src").rglob("*.py")]
    strings = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant | ast.JoinedStr)]
    return "\n".join(_text(node) for node in strings)


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else "…"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = FENCED.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
