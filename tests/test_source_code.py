"""The version of a node's code changes with every module that it imports, and with no other."""

from pathlib import Path

import pytest

from ddpm_kedro import source_code
from ddpm_kedro.pipeline_registry import MAIN_JOB
from ddpm_kedro.source_code import PACKAGE, WITHOUT_EFFECT, source_files, source_fingerprint
from tests.test_dvc_stages import graph, imported


@pytest.mark.parametrize("pipeline", [*MAIN_JOB, "image_to_image", "inpainting", "interpolation"])
def test_the_sources_are_the_modules_that_python_imports(pipeline: str) -> None:
    package = f"ddpm_kedro.pipelines.{pipeline}"
    modules = imported({package, *graph().find_descendants(package)}, WITHOUT_EFFECT)
    files = {PACKAGE.parent / f"{name.replace('.', '/')}.py" for name in modules}
    found = source_files(f"pipelines.{pipeline}.nodes")
    assert {path for path in found if path.suffix == ".py" and path.name != "__init__.py"} == {
        path for path in files if path.is_file()
    }


def test_a_template_is_part_of_the_sources() -> None:
    assert PACKAGE / "reporting/report.html.j2" in source_files("pipelines.reporting.nodes")


def test_the_fingerprint_changes_with_an_imported_module_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "nodes.py": "from ddpm_kedro.part.used import x\nfrom ddpm_kedro.errors import y\n",
        "part/__init__.py": "",
        "part/used.py": "def f():\n    from ddpm_kedro.late import (\n        z,\n    )\n",
        "late.py": "",
        "errors.py": "",
        "other.py": "",
    }.items():
        (tmp_path / "ddpm_kedro" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ddpm_kedro" / name).write_text(text)
    monkeypatch.setattr(source_code, "PACKAGE", tmp_path / "ddpm_kedro")

    def fingerprint() -> str:
        source_fingerprint.cache_clear()
        return source_fingerprint("ddpm_kedro.nodes")

    last = fingerprint()
    for name, counts in {
        "errors": False,
        "other": False,
        "late": True,
        "part/used": True,
        "part/__init__": True,
    }.items():
        (tmp_path / f"ddpm_kedro/{name}.py").write_text("# changed\n")
        assert (fingerprint() != last) == counts, name
        last = fingerprint()
    source_fingerprint.cache_clear()
