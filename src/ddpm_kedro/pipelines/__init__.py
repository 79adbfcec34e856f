"""The pipelines: in each, ``nodes.py`` has pure functions and ``pipeline.py`` the wiring."""
