"""Expressions on torch tensors: their values in float64, and the magnitude of the terms behind a value.

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

from collections.abc import Mapping

import torch
from torch import Tensor

from graphs.expressions import Expression, namespace_functions
from graphs.expressions.functions import operation
from graphs.expressions.tree import Call, Constant, Name, Tree

__all__ = ["TORCH", "scale_of"]

TORCH = namespace_functions(torch, lambda value: torch.as_tensor(value, dtype=torch.float64))
"""For ``Expression.evaluate``; gradients flow, and the result is on the device of the values."""


def scale_of(expression: Expression, values: Mapping[str, Tensor], scales: Mapping[str, Tensor]) -> Tensor:
    """The scale of an expression's value, given those of the names whose scale is more than their size."""
    return _scaled(expression.tree, values, scales)[1]


def _scaled(tree: Tree, values: Mapping[str, Tensor], scales: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A value and its scale."""
    match tree:
        case Constant(number):
            value = TORCH.array(number)
            return value, value.abs()
        case Name(name):
            value = TORCH.array(values[name])
            return value, torch.maximum(value.abs(), scales[name]) if name in scales else value.abs()
        case Call("clip", (x, low, high)):
            return _scaled(Call("minimum", (Call("maximum", (x, low)), high)), values, scales)
        case Call("**", (base, Constant(exponent))):
            x, scale = _scaled(base, values, scales)
            value = x**exponent
            return value, scale * x.abs() ** (exponent - 1) if exponent >= 1 else value.abs()
        case Call(function, arguments):
            parts = [_scaled(argument, values, scales) for argument in arguments]
            value = operation(function, TORCH)(*[part for part, _ in parts])
            return value, _scale(function, value, parts)


def _scale(function: str, value: Tensor, arguments: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The scale of a call's value, by the values and scales of its arguments."""
    match function, arguments:
        case "neg" | "abs", [(_, scale)]:
            return scale
        case "+" | "-" | "%", [(_, one), (_, other)]:
            return one + other
        case "*", [(x, one), (y, other)]:
            return torch.maximum(one * y.abs(), x.abs() * other)
        case "/", [(x, one), (y, other)]:
            size = y.abs()
            return torch.maximum(one, x.abs() * (other / size)) / size
        case "where", [(test, _), (_, then), (_, otherwise)]:
            return torch.where(test != 0, then, otherwise)
        case "maximum", [(x, one), (y, other)]:
            return torch.where(x >= y, one, other)
        case "minimum", [(x, one), (y, other)]:
            return torch.where(x <= y, one, other)
        case "sin" | "cos", _:
            return torch.ones_like(value)
        case "log" | "logit", _:
            return 1 + value.abs()
        case "exp", [(x, _)]:
            return (1 + x.abs()) * value.abs()
        case _:
            return value.abs()
