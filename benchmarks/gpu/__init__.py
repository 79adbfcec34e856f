"""The GPU kit: one command that measures everything a GPU can tell in nine minutes. See docs/benchmarks.md."""
