"""Causal effects: averages, groups, rows and paths, with their uncertainty."""

__all__: list[str] = []
