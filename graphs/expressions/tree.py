"""The tree of an expression: immutable nodes, compared by value, and their text.

Law: parsing a parsed tree's text gives an equal tree. Nodes are built by ``add`` and its like where a
formula is derived from another, so that 0 and 1 do not pile up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite

__all__ = [
    "ARITIES",
    "Binary",
    "Call",
    "Comparison",
    "Constant",
    "Logical",
    "Name",
    "Negative",
    "Not",
    "Tree",
    "add",
    "call",
    "children",
    "divide",
    "multiply",
    "names",
    "negate",
    "power",
    "subtract",
    "text",
]

ARITIES = {
    "abs": 1,
    "atanh": 1,
    "ceil": 1,
    "clip": 3,
    "cos": 1,
    "exp": 1,
    "floor": 1,
    "log": 1,
    "logit": 1,
    "maximum": 2,
    "minimum": 2,
    "round": 1,
    "sigmoid": 1,
    "sign": 1,
    "sin": 1,
    "sqrt": 1,
    "tanh": 1,
    "where": 3,
}
"""Every function, and how many arguments it takes: ``clip(x, lower, upper)``, ``where(test, then, else)``."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A finite number."""

    value: float


@dataclass(frozen=True, slots=True)
class Name:
    """A named value."""

    name: str


@dataclass(frozen=True, slots=True)
class Negative:
    """``-x``."""

    operand: Tree


@dataclass(frozen=True, slots=True)
class Binary:
    """``x + y``, and so on for ``- * / // % **``; the exponent is a constant."""

    operator: str
    left: Tree
    right: Tree


@dataclass(frozen=True, slots=True)
class Comparison:
    """``x < y <= z``: 1 where every comparison holds, else 0; one more operand than operators."""

    operators: tuple[str, ...]
    operands: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Logical:
    """``x and y``, ``x or y``: 1 or 0; what is not 0 is true."""

    operator: str
    operands: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """``not x``: 1 where x is 0, else 0."""

    operand: Tree


@dataclass(frozen=True, slots=True)
class Call:
    """A function of ``ARITIES`` with its arguments."""

    function: str
    arguments: tuple[Tree, ...]


Tree = Constant | Name | Negative | Binary | Comparison | Logical | Not | Call


def children(tree: Tree) -> tuple[Tree, ...]:
    """The subtrees of a node, from left to right."""
    match tree:
        case Constant() | Name():
            return ()
        case Negative(operand) | Not(operand):
            return (operand,)
        case Binary(_, left, right):
            return left, right
        case Comparison(_, operands) | Logical(_, operands):
            return operands
        case Call(_, arguments):
            return arguments


def names(tree: Tree) -> Iterator[str]:
    """Every occurrence of a name, from left to right."""
    if isinstance(tree, Name):
        yield tree.name
    for child in children(tree):
        yield from names(child)


def add(left: Tree, right: Tree) -> Tree:
    """``left + right``."""
    if isinstance(right, Negative):
        return subtract(left, right.operand)
    return _fold("+", left, right, lambda x, y: x + y, left_neutral=0, right_neutral=0)


def subtract(left: Tree, right: Tree) -> Tree:
    """``left - right``."""
    if left == Constant(0.0):
        return negate(right)
    return _fold("-", left, right, lambda x, y: x - y, right_neutral=0)


def multiply(left: Tree, right: Tree) -> Tree:
    """``left * right``; 0 where one of them is the constant 0."""
    if Constant(0.0) in (left, right):
        return Constant(0.0)
    return _fold("*", left, right, lambda x, y: x * y, left_neutral=1, right_neutral=1)


def divide(left: Tree, right: Tree) -> Tree:
    """``left / right``."""
    if Constant(0.0) in (left, right):
        return left if right != Constant(0.0) else Binary("/", left, right)
    return _fold("/", left, right, lambda x, y: x / y, right_neutral=1)


def power(base: Tree, exponent: float) -> Tree:
    """``base ** exponent``."""
    return base if exponent == 1 else Binary("**", base, Constant(exponent))


def negate(tree: Tree) -> Tree:
    """``-tree``."""
    if isinstance(tree, Constant):
        return Constant(-tree.value)
    return tree.operand if isinstance(tree, Negative) else Negative(tree)


def call(function: str, *arguments: Tree) -> Tree:
    """A function's call."""
    return Call(function, arguments)


def _fold(
    operator: str,
    left: Tree,
    right: Tree,
    compute: Callable[[float, float], float],
    *,
    left_neutral: float | None = None,
    right_neutral: float | None = None,
) -> Tree:
    if isinstance(left, Constant):
        if left.value == left_neutral:
            return right
        if isinstance(right, Constant) and isfinite(value := compute(left.value, right.value)):
            return Constant(value)
    if isinstance(right, Constant) and right.value == right_neutral:
        return left
    return Binary(operator, left, right)


# How tightly each form binds, as in Python.
_OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _UNARY, _POWER, _ATOM = range(9)
_BINDING = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "//": _PRODUCT, "%": _PRODUCT, "**": _POWER}


def text(tree: Tree) -> str:
    """The tree as an expression, with no more parentheses than it needs."""
    return _text(tree, _OR)


def _text(tree: Tree, binding: int) -> str:
    """The text, in parentheses where it binds less tightly than ``binding``."""
    own, written = _written(tree)
    return f"({written})" if own < binding else written


def _written(tree: Tree) -> tuple[int, str]:
    """How tightly the node binds, and its text."""
    match tree:
        case Constant(value):
            whole = value.is_integer() and abs(value) < 1e16
            written = str(int(value)) if whole and (value or str(value) == "0.0") else repr(value)
            return (_UNARY if written.startswith("-") else _ATOM), written
        case Name(name):
            return _ATOM, name
        case Negative(operand):
            return _UNARY, f"-{_text(operand, _UNARY)}"
        case Binary("**", left, right):
            return _POWER, f"{_text(left, _ATOM)} ** {_text(right, _UNARY)}"
        case Binary(operator, left, right):
            own = _BINDING[operator]
            return own, f"{_text(left, own)} {operator} {_text(right, own + 1)}"
        case Comparison(operators, operands):
            first, *rest = (_text(operand, _SUM) for operand in operands)
            pairs = zip(operators, rest, strict=True)
            return _COMPARISON, " ".join([first, *(f"{operator} {operand}" for operator, operand in pairs)])
        case Logical(operator, operands):
            own = _AND if operator == "and" else _OR
            return own, f" {operator} ".join(_text(operand, own + 1) for operand in operands)
        case Not(operand):
            return _NOT, f"not {_text(operand, _NOT)}"
        case Call(function, arguments):
            return _ATOM, f"{function}({', '.join(_text(argument, _OR) for argument in arguments)})"
