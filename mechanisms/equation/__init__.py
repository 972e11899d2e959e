"""Structural equations written as expressions, inverted to recover their noise."""
