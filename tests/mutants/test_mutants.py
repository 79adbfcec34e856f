"""The list of known bugs does not rot."""

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.mutants.__main__ import HEALTHY, row, selection_for
from tests.mutants.bugs import MUTANTS
from tests.mutants.mutant import PACKAGE, Edit, Mutant


def test_every_mutant_still_applies_and_leaves_python_behind() -> None:
    for mutant in MUTANTS:
        mutant.check(ROOT)
        assert all(edit.right != edit.wrong for edit in mutant.edits), mutant.name


def test_every_mutant_has_a_name_of_its_own() -> None:
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


def test_a_mutant_changes_nothing_else(tmp_path: Path) -> None:
    (tmp_path / PACKAGE).mkdir(parents=True)
    (tmp_path / PACKAGE / "part.py").write_text("a = 1\nb = 2\n")
    Mutant("a bug", Edit("part.py", "= 2", "= 3"), Edit("part.py", "a =", "c =")).plant(tmp_path)
    assert (tmp_path / PACKAGE / "part.py").read_text() == "c = 1\nb = 3\n"


def test_the_tests_of_the_changed_module_come_first_and_all_others_last() -> None:
    near, far = selection_for(Mutant("a bug", Edit("diffusion/samplers.py", "", "")))
    assert near == ["tests/diffusion/test_samplers.py", "tests/diffusion"]
    assert far == ["tests/models", "tests/training", "tests/images", "tests/datasets", "tests/pipelines"]
    assert selection_for(HEALTHY) == [["tests/diffusion", *far]]


def test_a_survivor_is_called_one() -> None:
    assert row("a bug", []).endswith("  0  SURVIVES")
    assert row("a bug", ["test_a[1]", "test_a[2]", "test_b"]).endswith(" 3+  test_a, test_b")
