"""What ``do`` may say about a node, turned into the mechanism that takes the node's place.

do={"x": 5}                    one value for every row
do={"x": [5, 6, 7]}            one value a row
do={"x": lambda x: x + 1}      a function of the node's natural value in the counterfactual world
do={"x": Shift(1)}             the same, and it can be printed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from graphs.causal_graph import CausalGraph
from graphs.errors import InterventionError, UnknownNameError
from graphs.variables import Variable
from mechanisms.base import Mechanism
from mechanisms.constant import ConstantMechanism
from mechanisms.function import FunctionMechanism

__all__ = ["Intervention", "Scale", "Shift", "interventions"]

_NATURAL = "--natural"


@dataclass(frozen=True)
class Shift:
    """Add an amount to a node's natural value, in the variable's unit."""

    amount: float

    def __call__(self, natural: Any) -> Any:
        """The shifted value."""
        return natural + self.amount


@dataclass(frozen=True)
class Scale:
    """Multiply a node's natural value."""

    factor: float

    def __call__(self, natural: Any) -> Any:
        """The scaled value."""
        return natural * self.factor


@dataclass(frozen=True)
class Intervention:
    """What takes a node's place.

    Attributes:
        mechanism: the node's new mechanism.
        natural: name of the node's natural half, which the mechanism reads; None where it reads nothing.
        rows: number of rows it has values for; 1 serves any number.
        text: what was asked, for listings.
    """

    mechanism: Mechanism
    natural: str | None
    rows: int
    text: str


def interventions(
    do: Mapping[str, Any], graph: CausalGraph, variables: Mapping[str, Variable]
) -> dict[str, Intervention]:
    """Check what ``do`` says against the model.

    Raises:
        UnknownNameError: no such node.
        DomainError: a value lies outside its variable's domain.
        InterventionError: ``do`` is not a mapping, or its values have different numbers of rows.
    """
    if not isinstance(do, Mapping):
        raise InterventionError(f"do maps nodes to values, as in do={{'x': 1}}; got a {type(do).__name__}.")
    found: dict[str, Intervention] = {}
    for node, value in do.items():
        if node not in variables:
            raise UnknownNameError.of("node", node, variables, where="do")
        found[node] = _intervention(node, variables[node], value, graph)
    counts = {node: each.rows for node, each in found.items() if each.rows != 1}
    if len(set(counts.values())) > 1:
        raise InterventionError(f"Values in do must have equal numbers of rows, got {counts}.")
    return found


def _intervention(node: str, variable: Variable, value: Any, graph: CausalGraph) -> Intervention:
    if callable(value):
        natural = node + _NATURAL
        if natural in graph:
            raise InterventionError(
                f"Node {natural!r} stands in the way of an intervention on {node!r}. Rename it."
            )
        text = repr(value) if isinstance(value, Shift | Scale) else getattr(value, "__name__", repr(value))
        return Intervention(FunctionMechanism(node, variable, natural, value), natural, 1, text)
    rows = torch.as_tensor(variable.encode(value, where=f"Intervention on {node!r}"))
    text = str(value) if rows.numel() == 1 else f"{len(rows)} values" if len(rows) > 1 else "an array"
    return Intervention(ConstantMechanism.of(variable, rows), None, len(rows), text)
