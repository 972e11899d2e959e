"""Evaluation of a fitted model: ``cg.evaluate``, and ``cg.tune``, the choice of a guidance strength."""

__all__ = ["STRENGTHS"]

STRENGTHS = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6)
"""Guidance strengths that ``cg.tune`` and ``causalgen tune`` try unless told."""
