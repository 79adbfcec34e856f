"""Kedro hooks: what happens around nodes."""
