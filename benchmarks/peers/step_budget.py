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
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
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
        return len(self.steps) * float(np.percentile(self.steps, 10)) if self.steps else 0.0

    def report(self) -> dict[str, Any]:
        """What was spent, for ``budget.json``."""
        return {
            "steps": len(self.steps),
            "charged_seconds": self.charged,
            "budget_seconds": self.seconds,
            "process_cpu_seconds": time.process_time() - self.began,
            "wall_seconds": time.time() - self.wall,
        }
