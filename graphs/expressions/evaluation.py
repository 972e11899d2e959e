"""Trees to closures that work on any library's arrays, in float64 throughout.

Truth is 1 or 0, so that comparisons can be multiplied and added. Division by zero and logarithms of negative
numbers give inf and nan, as in the array library; ``where`` computes both of its branches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphs.errors import UnknownNameError
from graphs.expressions.tree import Binary, Call, Comparison, Constant, Logical, Name, Negative, Not, Tree

__all__ = ["Compiled", "Functions", "NUMPY", "compile_tree"]

Compiled = Callable[[Mapping[str, Any]], Any]
"""Values by name to the value of the expression."""


@dataclass(frozen=True)
class Functions:
    """What an array library provides.

    Attributes:
        array: a number or an array to a float64 array of the library.
        calls: the functions of ``ARITIES`` by name, on such arrays; but ``where`` gets a boolean condition.
    """

    array: Callable[[Any], Any]
    calls: Mapping[str, Callable[..., Any]]


def _array(value: Any) -> Any:
    return np.asarray(value, dtype=np.float64)


def _clip(x: Any, lower: Any, upper: Any) -> Any:
    return np.minimum(np.maximum(x, lower), upper)


def _logit(x: Any) -> Any:
    return np.log(x) - np.log1p(-x)


def _sigmoid(x: Any) -> Any:
    return np.exp(-np.logaddexp(0.0, -x))


NUMPY = Functions(
    array=_array,
    calls={
        "abs": np.abs,
        "atanh": np.arctanh,
        "ceil": np.ceil,
        "clip": _clip,
        "cos": np.cos,
        "exp": np.exp,
        "floor": np.floor,
        "log": np.log,
        "logit": _logit,
        "maximum": np.maximum,
        "minimum": np.minimum,
        "round": np.round,
        "sigmoid": _sigmoid,
        "sign": np.sign,
        "sin": np.sin,
        "sqrt": np.sqrt,
        "tanh": np.tanh,
        "where": np.where,
    },
)
"""The functions of numpy."""

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
    "//": lambda x, y: x // y,
    "%": lambda x, y: x % y,
    "<": lambda x, y: x < y,
    "<=": lambda x, y: x <= y,
    ">": lambda x, y: x > y,
    ">=": lambda x, y: x >= y,
    "==": lambda x, y: x == y,
    "!=": lambda x, y: x != y,
    "and": lambda x, y: x & y,
    "or": lambda x, y: x | y,
}


def compile_tree(tree: Tree, functions: Functions) -> Compiled:
    """The tree as a function of values by name.

    The values are what ``functions.array`` takes, of shapes that broadcast; the result is a float64 array. It
    raises UnknownNameError where a name has no value.
    """
    compiled = _compiled(tree, functions)

    def evaluate(values: Mapping[str, Any]) -> Any:
        with np.errstate(all="ignore"):
            return functions.array(compiled(values))

    return evaluate


def _compiled(tree: Tree, functions: Functions) -> Compiled:
    match tree:
        case Constant(number):
            constant = functions.array(number)  # an array, since Python's own numbers would raise on 1 / 0
            return lambda values: constant
        case Name(name):
            return lambda values: functions.array(_look_up(name, values))
        case Negative(operand):
            inner = _compiled(operand, functions)
            return lambda values: -inner(values)
        case Binary("**", left, Constant(exponent)):
            base = _compiled(left, functions)
            return lambda values: base(values) ** exponent
        case Binary(symbol, left, right):
            return _joined(_OPERATORS[symbol], _compiled(left, functions), _compiled(right, functions))
        case Comparison(operators, operands):
            return _chain(operators, [_compiled(operand, functions) for operand in operands], functions)
        case Logical(symbol, operands):
            join, parts = _OPERATORS[symbol], [_truth(operand, functions) for operand in operands]
            return lambda values: functions.array(_reduced(join, [part(values) for part in parts]))
        case Not(operand):
            inner = _truth(operand, functions)
            return lambda values: functions.array(inner(values) == 0)
        case Call("where", (test, *branches)):
            chosen, parts = functions.calls["where"], [_compiled(branch, functions) for branch in branches]
            condition = _truth(test, functions)
            return lambda values: chosen(condition(values), *(part(values) for part in parts))
        case Call(name, arguments):
            function, parts = (
                functions.calls[name],
                [_compiled(argument, functions) for argument in arguments],
            )
            return lambda values: function(*(part(values) for part in parts))


def _look_up(name: str, values: Mapping[str, Any]) -> Any:
    if name not in values:
        raise UnknownNameError.of("name", name, values, where="an expression")
    return values[name]


def _joined(function: Callable[[Any, Any], Any], left: Compiled, right: Compiled) -> Compiled:
    return lambda values: function(left(values), right(values))


def _truth(tree: Tree, functions: Functions) -> Compiled:
    """Whether the tree's value is not 0, as booleans."""
    inner = _compiled(tree, functions)
    return lambda values: inner(values) != 0


def _chain(operators: tuple[str, ...], parts: list[Compiled], functions: Functions) -> Compiled:
    """``a < b < c``, each operand computed once."""

    def evaluate(values: Mapping[str, Any]) -> Any:
        found = [part(values) for part in parts]
        pairs = zip(operators, found, found[1:], strict=False)
        return functions.array(
            _reduced(_OPERATORS["and"], [_OPERATORS[symbol](x, y) for symbol, x, y in pairs])
        )

    return evaluate


def _reduced(join: Callable[[Any, Any], Any], parts: list[Any]) -> Any:
    result, *rest = parts
    for part in rest:
        result = join(result, part)
    return result
