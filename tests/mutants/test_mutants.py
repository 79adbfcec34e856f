"""The list of known bugs fits the source."""

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.mutants.__main__ import HEALTHY, row, selection_for
from tests.mutants.bugs import MUTANTS
from tests.mutants.mutant import PACKAGE, Edit, Mutant


def test_every_mutant_applies_and_the_result_compiles() -> None:
    for mutant in MUTANTS:
        mutant.check(ROOT)
        assert all(edit.right != edit.wrong for edit in mutant.edits), mutant.name


def test_names_of_mutants_are_unique() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("minus", "plus", "'minus' stands 0 times in part.py, not once"),
        ("x", "y", "'x' stands 2 times in part.py, not once"),
        ("= x", "=", "invalid syntax"),
    ],
)
def test_a_mutant_that_does_not_apply_is_named(right: str, wrong: str, words: str, tmp_path: Path) -> None:
    (tmp_path / PACKAGE).mkdir(parents=True)
    (tmp_path / PACKAGE / "part.py").write_text("x = x\n")
    with pytest.raises(ValueError, match=f"mutant “a bug” does not apply: {words}"):
        Mutant("a bug", Edit("part.py", right, wrong)).check(tmp_path)


def test_a_mutant_changes_only_its_own_text(tmp_path: Path) -> None:
    (tmp_path / PACKAGE).mkdir(parents=True)
    (tmp_path / PACKAGE / "part.py").write_text("a = 1\nb = 2\n")
    Mutant("a bug", Edit("part.py", "= 2", "= 3"), Edit("part.py", "a =", "c =")).plant(tmp_path)
    assert (tmp_path / PACKAGE / "part.py").read_text() == "c = 1\nb = 3\n"


def test_the_tests_of_the_changed_module_run_first_and_other_folders_last() -> None:
    near, far = selection_for(Mutant("a bug", Edit("diffusion/samplers.py", "", "")))
    assert near == ["tests/diffusion/test_samplers.py", "tests/diffusion"]
    assert far == [f"tests/{name}" for name in ("models", "training", "ingestion", "images", "datasets", "pipelines")]
    assert selection_for(Mutant("a bug", Edit("hooks/wandb_run.py", "", "")))[0] == ["tests/hooks"]
    assert selection_for(HEALTHY) == [["tests/diffusion", *far]]


def test_the_row_of_an_uncaught_bug_says_survives() -> None:
    assert row("a bug", []).endswith("  0  SURVIVES")
    assert row("a bug", ["test_a[1]", "test_a[2]", "test_b"]).endswith(" 3+  test_a, test_b")
