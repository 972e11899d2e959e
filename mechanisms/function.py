"""``x := g(x°)``: a node set to a function of its own natural value x°, what it would have been.

An intervention splits the node (Richardson & Robins 2013, single-world intervention graphs): the natural
half keeps the node's mechanism and noise, the other half, which the children see, is this function of it.
The function works in the user's form (data units, images in [0, 1], labels); rows that it returns unchanged
keep their natural value bit for bit, so that the identity is no intervention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor

from graphs.errors import DomainError
from graphs.variables import Variable
from mechanisms.base import Abducted, Mechanism, MechanismSpec, Noise, Parents

__all__ = ["Function", "FunctionMechanism"]


class Function(MechanismSpec, frozen=True):
    """A function that only the running program knows: no file can say it."""

    kind: Literal["function"] = "function"
    training: None = None


@final
class FunctionMechanism(Mechanism):
    """``x := g(x°)``; its only parent is the natural half of its own node."""

    def __init__(self, node: str, variable: Variable, natural: str, function: Callable[[Any], Any]) -> None:
        """Bind the function.

        Args:
            node: the node, for messages.
            variable: of the node.
            natural: name of its natural half.
            function: user's values of N rows, a tensor (N, *event) or an array of labels, to as many rows or
                to one.
        """
        super().__init__(Function(), variable, {natural: variable})
        self.node, self.natural, self.function = node, natural, function

    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        """No leaves: there is no noise."""
        return Noise(n)

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """g of the natural value, checked against the variable's domain.

        Raises:
            DomainError: the function leaves the domain, or returns another number of rows.
        """
        natural = parents[self.natural]
        seen = self.variable.decode(natural)
        # A function that works in place must not reach the natural value.
        seen = seen.clone() if isinstance(seen, Tensor) else np.array(seen)
        before = seen.clone() if isinstance(seen, Tensor) else seen.copy()
        where = f"Intervention on {self.node!r}: the function's value"
        returned = self.function(seen)
        value = torch.as_tensor(self.variable.encode(returned, where=where)).to(natural)
        if len(value) not in (1, len(natural)):
            raise DomainError(f"{where} must have 1 row or {len(natural)}, got {len(value)}.")
        value = value.expand_as(natural)
        same = self._unchanged(before, returned, len(natural))
        return value if same is None else torch.where(same.view(-1, *[1] * (value.ndim - 1)), natural, value)

    def abduct(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Abducted:
        """No noise."""
        return Abducted(Noise(len(value)))

    @staticmethod
    def _unchanged(before: Any, after: Any, rows: int) -> Tensor | None:
        """Which rows the function returned as they were, (N,); None where shapes rule it out."""
        same = torch.as_tensor(np.asarray(before) == np.asarray(after))
        return same.reshape(rows, -1).all(1) if same.shape == np.shape(before) else None
