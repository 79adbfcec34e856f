"""The GPU kit: one command that takes all measurements of a GPU in nine minutes. See docs/benchmarks.md."""
