"""Figures, grids, animations and the report of a run."""
