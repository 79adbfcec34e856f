"""Known bugs, and the proof that the fast tests notice each of them: ``make mutants``."""
