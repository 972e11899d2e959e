"""Expressions in ``do``: "y + 2*a" reads other nodes, and the node's own name is its natural value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from graphs.errors import DomainError, InterventionError, SpecError, UnknownNameError
from graphs.expressions import Expression, parse_expression
from graphs.variables import Variable
from mechanisms.equation.values import TORCH

__all__ = ["Formula", "parse_assignment"]


@dataclass(frozen=True)
class Formula:
    """An expression as a function of the values of its names, in their order.

    Attributes:
        expression: reads at least one name.
        event: shape of the node's values; a scalar node that is read counts for each of their elements.
    """

    expression: Expression
    event: tuple[int, ...]

    @cached_property
    def _compiled(self) -> Any:
        return self.expression.compile(TORCH)

    def __call__(self, *values: Tensor) -> Tensor:
        """(N, *event) of values (N, *event) or (N,), categories as codes."""
        columns = {
            name: value.reshape(*value.shape, *[1] * (len(self.event) + 1 - value.ndim))
            for name, value in zip(self.expression.names, values, strict=True)
        }
        return self._compiled(columns).expand(len(values[0]), *self.event)


def parse_assignment(node: str, text: str, variables: Mapping[str, Variable]) -> Formula | Any:
    """What a string in ``do`` means: a label, a number, or a formula of nodes.

    Raises:
        DomainError: neither a label of the labelled node nor an expression.
        UnknownNameError: the expression reads a name that is no node.
        InterventionError: it is no expression, or reads a node of another shape.
    """
    variable, where = variables[node], f"Intervention on {node!r}"
    labelled = getattr(variable, "labels", None) is not None
    if labelled and _is_label(text, variable):
        return text
    try:
        expression = parse_expression(text)
    except SpecError as error:
        if labelled:
            variable.encode(text, where=where)
        raise InterventionError(f"{where}: {error}") from error
    if unknown := [name for name in expression.names if name not in variables]:
        if labelled and expression.names == (text,):
            variable.encode(text, where=where)
        dashed = [name for name in variables if "-" in name]
        hint = f" No expression can read {dashed[0]!r}: in it, - is minus. Use a Policy." if dashed else ""
        error = UnknownNameError.of("node", unknown[0], variables, where=f"do={{{node!r}: {text!r}}}")
        raise UnknownNameError(f"{error}{hint}")
    if not expression.names:
        if labelled:  # a number is no code where a label is expected
            variable.encode(text, where=where)
        whole = text.strip().isascii() and text.strip().removeprefix("-").isdigit()
        return int(text) if whole else float(expression.evaluate({}))  # no digit of a whole number is lost
    for name in expression.names:
        if (shape := variables[name].event_shape) not in ((), variable.event_shape):
            raise InterventionError(
                f"{where}: the expression {text!r} reads {name!r}, whose values have shape {tuple(shape)}; "
                f"expected () or the node's own, {tuple(variable.event_shape)}. Use a Policy."
            )
    return Formula(expression, tuple(variable.event_shape))


def _is_label(text: str, variable: Variable) -> bool:
    try:
        variable.encode(text, where="")
    except DomainError:
        return False
    return True
