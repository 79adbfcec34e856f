"""What a mutant is."""

from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path("src/ddpm_kedro")


@dataclass(frozen=True)
class Edit:
    """A piece of the source that is replaced.

    Attributes:
        file: below the package.
        right: the text as it is, which stands there exactly once.
        wrong: what takes its place.
    """

    file: str
    right: str
    wrong: str

    def of(self, root: Path) -> str:
        """The source file of the project at ``root``, with the bug.

        Raises:
            ValueError: where the text is not there exactly once.
        """
        source = (root / PACKAGE / self.file).read_text()
        if (count := source.count(self.right)) != 1:
            raise ValueError(f"{self.right!r} stands {count} times in {self.file}, not once")
        return source.replace(self.right, self.wrong)


class Mutant:
    """A known bug: one edit, or several that only together make it."""

    def __init__(self, name: str, *edits: Edit) -> None:
        self.name, self.edits = name, edits

    def check(self, root: Path) -> None:
        """Raise ValueError where an edit cannot be made to the project at ``root``, or leaves no Python behind."""
        for edit in self.edits:
            try:
                compile(edit.of(root), edit.file, "exec")
            except (ValueError, SyntaxError) as error:
                raise ValueError(f"mutant “{self.name}” does not apply: {error}") from error

    def plant(self, root: Path) -> None:
        """Make the edits to the project at ``root``."""
        for edit in self.edits:
            (root / PACKAGE / edit.file).write_text(edit.of(root))
