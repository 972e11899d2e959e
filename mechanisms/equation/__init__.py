"""Structural equations written as expressions, inverted to recover their noise."""

__all__: list[str] = []
