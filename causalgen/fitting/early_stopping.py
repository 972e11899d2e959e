"""Early stopping: keep the weights whose held-out loss is least, and stop once it has not fallen for long.

The held-out loss is looked at between epochs, at most once in 5 steps, and after the last one, of the
averaged weights where there is an average. The weights that training began with are a candidate too. All of
it is part of a run's state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from mechanisms.training import Training

__all__ = ["EarlyStopping", "patience_of"]

_PATIENCE = 15
"""Epochs without a better held-out loss, for ``patience: auto`` of a table node."""

_STEPS_APART = 5

_LEAST_STEPS = 60
"""Steps that these epochs take at least: of a small table, an epoch is a step or two."""


def patience_of(settings: Training, *, images: bool) -> int | None:
    """Epochs that a fit waits for a better held-out loss; None where it never stops early."""
    if settings.validation == 0:
        return None
    if settings.patience == "auto":
        return None if images else _PATIENCE
    return settings.patience


class EarlyStopping:
    """The weights and buffers with the least held-out loss so far, after ``step`` steps."""

    def __init__(self, held_out_loss: Callable[[], float], patience: int, batches: int) -> None:
        self._held_out_loss = held_out_loss
        self._patience = max(patience * batches, _LEAST_STEPS)
        self.best, self.step, self.looked = math.inf, 0, -1
        self.kept: dict[str, Tensor] = {}

    def due(self, step: int) -> bool:
        """Whether it is time to look again, between two epochs."""
        return self.looked < 0 or step - self.looked >= _STEPS_APART

    def look(self, step: int, tensors: Callable[[], Mapping[str, Tensor]]) -> None:
        """Measure the weights after so many steps, and keep them where they are the best."""
        self.looked = step
        loss = self._held_out_loss()
        if not self.kept or loss < self.best:  # never against a loss that is no number
            self.best, self.step = loss, step
            self.kept = {name: tensor.detach().clone() for name, tensor in tensors().items()}

    @property
    def done(self) -> bool:
        """Whether the best weights are too long ago."""
        return self.looked - self.step >= self._patience

    def values(self) -> dict[str, Any]:
        """Its plain values, for a run's state."""
        return {"best": self.best, "best_step": self.step, "looked": self.looked}

    def restore(self, values: Mapping[str, Any], kept: dict[str, Tensor]) -> None:
        """Go on from a state."""
        self.best, self.step = float(values["best"]), int(values["best_step"])
        self.looked, self.kept = int(values["looked"]), kept
