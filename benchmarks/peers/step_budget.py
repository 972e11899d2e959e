"""A training budget in CPU seconds of one thread of a quiet machine.

On a shared machine a step costs more CPU time than it does alone. So every step is charged at the 10th
percentile of the steps' CPU times so far.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

__all__ = ["StepBudget"]


class StepBudget:
    """Counts steps and what they are charged.

    Args:
        seconds: that may be spent.
        earlier: ``report`` of the run that is continued, whose steps count.
    """

    def __init__(self, seconds: float, earlier: dict[str, Any] | None = None) -> None:
        self.seconds = seconds
        self.earlier = earlier or {}
        self.steps: list[float] = []
        self.mark = self.began = time.process_time()
        self.wall = time.time()

    def begin(self) -> None:
        """A step begins."""
        self.mark = time.process_time()

    def end(self) -> None:
        """It ended."""
        self.steps.append(time.process_time() - self.mark)

    @property
    def charged(self) -> float:
        """CPU seconds charged so far."""
        now = len(self.steps) * float(np.percentile(self.steps, 10)) if self.steps else 0.0
        return self.earlier.get("charged_seconds", 0.0) + now

    @property
    def taken(self) -> int:
        """Steps so far."""
        return self.earlier.get("steps", 0) + len(self.steps)

    def report(self) -> dict[str, Any]:
        """What was spent, for ``budget.json``."""
        return {
            "steps": self.taken,
            "charged_seconds": self.charged,
            "budget_seconds": self.seconds,
            "process_cpu_seconds": self._and_earlier("process_cpu_seconds", time.process_time() - self.began),
            "wall_seconds": self._and_earlier("wall_seconds", time.time() - self.wall),
        }

    def _and_earlier(self, name: str, now: float) -> float:
        return self.earlier.get(name, 0.0) + now
