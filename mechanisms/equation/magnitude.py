"""The scale of a computed value: how large the terms are that it was computed from.

    a + b, a - b     the scales of both added
    a * b, a / b     of the one times (over) the size of the other, the larger of both ways
    a ** n, n >= 1   the scale of a, times |a| ** (n - 1)
    one of several   the scale of the one that was taken (where, minimum, maximum, clip)
    log, logit       1 + |value|;  exp: (1 + |argument|) |value|;  sin, cos: 1
    any other        |value|

Data of a relative precision give a value of that precision, in parts of its scale: a - b may be 0 where a and
b are not, and is then no more certain than they are. The scale grows with the unit of the data, and is at
least |value|.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from graphs.expressions import Expression
from graphs.expressions.evaluation import compile_tree
from graphs.expressions.tree import Binary, Call, Constant, Name, Negative, Tree
from mechanisms.equation.tensor_functions import TORCH

__all__ = ["compile_scale"]

Sizes = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
"""Values by name, and scales of some names, to the scale of the tree's value."""


def compile_scale(expression: Expression) -> Sizes:
    """The scale as a function of the values, and of the scales of names that have more than their size."""
    return _scale(expression.tree)


def _scale(tree: Tree) -> Sizes:
    match tree:
        case Constant(number):
            constant = torch.tensor(abs(number), dtype=torch.float64)
            return lambda values, scales: constant
        case Name(name):
            return lambda values, scales: _named(name, values, scales)
        case Negative(operand) | Call("abs", (operand,)):
            return _scale(operand)
        case Binary("+" | "-" | "%", left, right):
            one, other = _scale(left), _scale(right)
            return lambda values, scales: one(values, scales) + other(values, scales)
        case Binary("*" | "/" as operator, left, right):
            return _product(operator, left, right)
        case Binary("**", base, Constant(exponent)) if exponent >= 1:
            inner, size = _scale(base), _size(base)
            return lambda values, scales: inner(values, scales) * size(values) ** (exponent - 1)
        case Call("where", (test, then, otherwise)):
            chosen, one, other = compile_tree(test, TORCH), _scale(then), _scale(otherwise)
            return lambda values, scales: torch.where(
                chosen(values) != 0, one(values, scales), other(values, scales)
            )
        case Call("maximum" | "minimum" as name, (left, right)):
            return _extreme(name, left, right)
        case Call("clip", (x, low, high)):
            return _scale(Call("minimum", (Call("maximum", (x, low)), high)))
        case _:
            return _nonlinear(tree)


def _nonlinear(tree: Tree) -> Sizes:
    size = _size(tree)
    match tree:
        case Call("sin" | "cos"):
            return lambda values, scales: torch.ones_like(size(values))
        case Call("log" | "logit"):
            return lambda values, scales: 1 + size(values)
        case Call("exp", (operand,)):
            inner = _size(operand)
            return lambda values, scales: (1 + inner(values)) * size(values)
        case _:
            return lambda values, scales: size(values)


def _size(tree: Tree) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """|value|."""
    value = compile_tree(tree, TORCH)
    return lambda values: value(values).abs()


def _named(name: str, values: Mapping[str, Tensor], scales: Mapping[str, Tensor]) -> Tensor:
    size = TORCH.array(values[name]).abs()
    return torch.maximum(size, scales[name]) if name in scales else size


def _product(operator: str, left: Tree, right: Tree) -> Sizes:
    one, other, first, second = _scale(left), _scale(right), _size(left), _size(right)

    def scale(values: Mapping[str, Tensor], scales: Mapping[str, Tensor]) -> Tensor:
        x, y = first(values), second(values)
        if operator == "*":
            return torch.maximum(one(values, scales) * y, x * other(values, scales))
        return torch.maximum(one(values, scales), x * (other(values, scales) / y)) / y

    return scale


def _extreme(name: str, left: Tree, right: Tree) -> Sizes:
    one, other = _scale(left), _scale(right)
    x, y = compile_tree(left, TORCH), compile_tree(right, TORCH)

    def scale(values: Mapping[str, Tensor], scales: Mapping[str, Tensor]) -> Tensor:
        first = x(values) >= y(values) if name == "maximum" else x(values) <= y(values)
        return torch.where(first, one(values, scales), other(values, scales))

    return scale
