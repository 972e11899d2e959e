"""Warn where an intervention leaves the range of values that fitting saw: there a model only extrapolates."""

from __future__ import annotations

import warnings

from torch import Tensor

from graphs.errors import ExtrapolationWarning

__all__ = ["warn_unseen"]


def warn_unseen(value: Tensor, seen: Tensor | None, *, where: str, rows: Tensor | None = None) -> None:
    """Warn once, with the first row that lies outside.

    Args:
        value: (N, *event).
        seen: (2, *event), the least and the largest value in fitting; NaN or None where that is not known.
        where: starts the message, as in "Intervention on 'x'".
        rows: (N,) bool, which rows count; all where None.
    """
    if seen is None:
        return
    outside = (value < seen[0]) | (value > seen[1])
    if rows is not None:
        outside &= rows.view(-1, *[1] * (value.ndim - 1))
    if not bool(outside.any()):
        return
    row, *event = outside.nonzero()[0].tolist()
    low, high = (bound[tuple(event)].item() for bound in seen)
    count = int(outside.reshape(len(outside), -1).any(1).sum())
    at = f" at {event}" if event else ""
    warnings.warn(
        f"{where}: row {row} is {value[(row, *event)].item():g}{at}, outside [{low:g}, {high:g}], the range "
        f"seen in fitting ({count} of {len(value)} rows are). What follows from it is extrapolation.",
        ExtrapolationWarning,
        stacklevel=2,
    )
