"""Which strength of guidance a sweep recommends, and why.

1. Effectiveness first: only strengths whose counterfactuals show the class asked for often enough count. CLD
   alone may prefer a strength that hardly ever reaches it. If none does, the most effective is taken.
2. Then the least CLD (Sanchez & Tsaftaris 2022, figure 5), up to its error: strengths whose CLD lies within
   the interval of the least are tied. A tie keeps the strength that the model has, or takes the smallest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from causalgen.evaluation.tuning import Tuned

__all__ = ["Choice", "choose"]


@dataclass(frozen=True)
class Choice:
    """A point of a sweep.

    Attributes:
        point: the one chosen.
        reason: why, as the end of a sentence about it.
        effective: whether it reaches the least effectiveness asked for.
    """

    point: Tuned
    reason: str
    effective: bool


def choose(points: Sequence[Tuned], least: float, current: float | None) -> Choice:
    """The point of a sweep to take; see the module.

    Args:
        points: by rising strength, at least one.
        least: effectiveness to reach, 0 to 1.
        current: the strength that the model has, or None where it differs by row.
    """
    allowed = [point for point in points if point.scores["effectiveness"].value >= least]
    if not allowed:
        most = max(points, key=lambda point: (point.scores["effectiveness"].value, -_cld(point)))
        share = most.scores["effectiveness"]
        return Choice(
            most, f"the most effective, at {share}; none reaches an effectiveness of {least:g}", False
        )
    best = min(allowed, key=_cld)
    interval = best.scores["CLD"]
    tied = [point for point in allowed if point is best or _cld(point) <= interval.high]
    dropped = f" of those that reach an effectiveness of {least:g}" if len(allowed) < len(points) else ""
    if len(tied) == 1:
        return Choice(best, f"the least CLD{dropped}", True)
    others = ", ".join(f"{point.strength:g}" for point in tied)
    told = f"its CLD is within the interval of the least{dropped} ({interval}, at {best.strength:g})"
    told += f", as that of {others}"
    for point in tied:
        if point.strength == current:
            return Choice(point, f"{told}; it is the model's own", True)
    return Choice(tied[0], f"{told}; it is the smallest of them", True)


def _cld(point: Tuned) -> float:
    return point.scores["CLD"].value
