"""One measured figure and what it is of; a report is a list of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from causalgen.metrics.scores import Score

__all__ = ["CONTROLS", "Entry", "FLOOR", "MECHANISM", "MODEL"]

MECHANISM, MODEL, FLOOR = "mechanism", "whole model", "floor"
"""Subjects: the node's mechanism at given parents; all mechanisms together; what cannot be beaten."""

CONTROLS = ("do nothing", "random real", "nearest real")


@dataclass(frozen=True)
class Entry:
    """One figure.

    Attributes:
        metric: such as "effectiveness".
        node: whose values are scored.
        subject: who made them: the mechanism, the whole model, a control, or the floor.
        score: the figure.
        do: the attribute that was set; empty where none was.
        of: what the figure is of: an attribute, or a number of cycles.
        by: who judged: "predictor", "measured", or a setting of the node.
    """

    metric: str
    node: str
    subject: str
    score: Score
    do: str = ""
    of: str = ""
    by: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        names = ("metric", "node", "subject", "do", "of", "by")
        return {name: getattr(self, name) for name in names} | self.score.to_dict()
