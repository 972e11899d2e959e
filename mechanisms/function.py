"""Conditional intervention ``x := g(a, b, x°)``: a function of other nodes and of the natural value x°.

The natural value is what the node would have been. A function that reads it splits the node (Richardson &
Robins 2013, single-world intervention graphs): the natural half keeps the node's mechanism and noise, the
other half, which the children see, is this function of it. Functions work in the user's form (data units,
images in [0, 1], labels); rows that they return unchanged keep their natural value bit for bit, so that the
identity is no intervention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor

from graphs.errors import DomainError
from graphs.variables import Categorical, Image, Integer, Variable
from graphs.variables.arrays import as_array
from mechanisms.base import InterventionSpec, Noise, Parents
from mechanisms.constant import Noiseless
from mechanisms.extrapolation import warn_unseen
from mechanisms.rows import where_rows

__all__ = ["Function", "FunctionMechanism"]

_TOLERANCE = 1e-6
"""How far evidence may be from the function's value, in parts of the largest number that enters it."""


class Function(InterventionSpec, frozen=True):
    """A function that only the running program knows."""

    kind: Literal["function"] = "function"


@final
class FunctionMechanism(Noiseless):
    """``x := g(...)`` of the parents' values; where it reads x°, the node's natural half is one of them."""

    restricts = True

    def __init__(
        self,
        node: str,
        variable: Variable,
        parents: Mapping[str, Variable],
        function: Callable[..., Any],
        *,
        natural: str | None = None,
        codes: bool = False,
        clip: bool = False,
    ) -> None:
        """Bind a function of one argument a parent, in their order, to a node.

        It takes the user's values of N rows, a tensor (N, *event) or an array of labels, and returns as many
        rows of the node, or one. ``natural`` is the parent that is the node's natural half, if any. ``codes``
        shows labelled categories as their codes, and takes codes for them; ``clip`` moves what is out of
        bounds onto the bound.
        """
        super().__init__(Function(), variable, parents)
        self.node, self.function, self.natural, self.codes, self.clip = node, function, natural, codes, clip

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """g of the parents' values, checked against the variable's domain."""
        where = f"Intervention on {self.node!r}: the function's value"
        # A function that works in place must not reach the values.
        shown = [
            _copied(self._form(variable).decode(parents[name])) for name, variable in self.parents.items()
        ]
        returned = self.function(*shown)
        same = self._unchanged(parents, returned, where)
        if same is not None and bool(same.all()):
            assert self.natural is not None
            return parents[self.natural]
        encoded = self._encode(returned, where)
        if len(encoded) not in (1, noise.n):
            raise DomainError(f"{where} must have 1 row or {noise.n}, got {len(encoded)}.")
        value = torch.as_tensor(encoded, device=self.fitted_flag.device)
        value = value.expand(noise.n, *value.shape[1:])
        if same is None:
            warn_unseen(value, self.seen_range, self.variable, where=where)
            return value
        assert self.natural is not None
        same = same.to(value.device)
        warn_unseen(value, self.seen_range, self.variable, where=where, rows=~same)
        return where_rows(same, parents[self.natural], value)

    def check(self, value: Tensor, parents: Parents) -> None:
        """Compare the value with the function's, within rounding."""
        expected = self.generate(parents, Noise(len(value))).to(value.device)
        apart = (value.double() - expected.double()).abs().reshape(len(value), -1).amax(1)
        read = [each.abs().double() for each in (expected, *parents.values()) if each.is_floating_point()]
        size = torch.stack([each.reshape(len(value), -1).amax(1) for each in read]).amax(0) if read else 0.0
        # Half a grey level, for pictures that a file rounded.
        slack = 1.01 / 255 if isinstance(self.variable, Image) else _TOLERANCE * size
        if isinstance(self.variable, Categorical | Integer):
            slack = 0.0  # whole numbers are not rounded
        self._refuse_others(value, expected, apart <= slack, "a function set")

    def _encode(self, returned: Any, where: str) -> Any:
        form = self._form(self.variable)
        return form.encode_clipped(returned, where=where) if self.clip else form.encode(returned, where=where)

    def _form(self, variable: Variable) -> Variable:
        """How the function sees a variable."""
        return Categorical(variable.size) if self.codes and isinstance(variable, Categorical) else variable

    def _unchanged(self, parents: Parents, returned: Any, where: str) -> Tensor | None:
        """Which rows the function returned as they naturally were, (N,); None where it cannot be told."""
        if self.natural is None:
            return None
        natural = as_array(self._form(self.variable).decode(parents[self.natural]), where=where)
        after = as_array(returned, where=where)
        if after.shape != natural.shape:
            return None
        return torch.as_tensor(np.asarray(natural == after)).reshape(len(natural), -1).all(1)


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else np.array(value)
