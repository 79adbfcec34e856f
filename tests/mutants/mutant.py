"""A mutant: a known bug as edits of the source."""

from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path("src/ddpm_kedro")


@dataclass(frozen=True)
class Edit:
    """The replacement of one piece of the source.

    Attributes:
        file: the path below the package.
        right: the correct text, which occurs exactly once in the file.
        wrong: the text that replaces it.
    """

    file: str
    right: str
    wrong: str

    def of(self, root: Path) -> str:
        """Return the source file of the project at ``root`` with the bug.

        Raises:
            ValueError: if the text does not occur exactly once.
        """
        source = (root / PACKAGE / self.file).read_text()
        if (count := source.count(self.right)) != 1:
            raise ValueError(f"{self.right!r} stands {count} times in {self.file}, not once")
        return source.replace(self.right, self.wrong)


class Mutant:
    """A known bug: one edit, or several edits that make the bug together."""

    def __init__(self, name: str, *edits: Edit) -> None:
        self.name, self.edits = name, edits

    def check(self, root: Path) -> None:
        """Raise ValueError if an edit does not apply to the project at ``root``, or if the result does not compile."""
        for edit in self.edits:
            try:
                compile(edit.of(root), edit.file, "exec")
            except (ValueError, SyntaxError) as error:
                raise ValueError(f"mutant “{self.name}” does not apply: {error}") from error

    def plant(self, root: Path) -> None:
        """Make the edits to the project at ``root``."""
        for edit in self.edits:
            (root / PACKAGE / edit.file).write_text(edit.of(root))
