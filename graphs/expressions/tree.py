"""The abstract syntax tree of an expression: immutable, compared by value; its simplification and its text.

Every operation is a ``Call``: "+", "neg" (unary minus), "**" (the exponent is a constant), "and", "not",
functions of ``ARITIES``, and comparisons, their operators joined: ``0 < a <= 1`` is ``Call("< <=", ...)``.

Law: parsing a parsed tree's text gives an equal tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

__all__ = ["ARITHMETIC", "COMPARISONS", "Call", "Constant", "Name", "Tree", "build", "names", "reads", "text"]

ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
    "//": lambda x, y: x // y,
    "%": lambda x, y: x % y,
    "**": lambda x, y: x**y,
}
COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": lambda x, y: x < y,
    "<=": lambda x, y: x <= y,
    ">": lambda x, y: x > y,
    ">=": lambda x, y: x >= y,
    "==": lambda x, y: x == y,
    "!=": lambda x, y: x != y,
}


@dataclass(frozen=True, slots=True)
class Constant:
    """A finite number."""

    value: float


@dataclass(frozen=True, slots=True)
class Name:
    """A named value."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """An operator or a function, and what it is applied to."""

    function: str
    arguments: tuple[Tree, ...]


Tree = Constant | Name | Call


def names(tree: Tree) -> Iterator[str]:
    """Every occurrence of a name, from left to right."""
    if isinstance(tree, Name):
        yield tree.name
    elif isinstance(tree, Call):
        for argument in tree.arguments:
            yield from names(argument)


def reads(tree: Tree, name: str) -> bool:
    """Whether ``name`` occurs in the tree."""
    return any(each == name for each in names(tree))


def build(function: str, *arguments: Tree) -> Tree:
    """A call, simplified where a 0, a 1 or constants allow it: for formulas that are derived from others."""
    match function, arguments:
        case "neg", (Constant(value),):
            return Constant(-value)
        case "neg", (Call("neg", (operand,)),):
            return operand
        case "+", (left, Call("neg", (right,))):
            return build("-", left, right)
        case "-", (Constant(0), right):
            return build("neg", right)
        case "*", (Constant(0), _) | (_, Constant(0)):
            return Constant(0.0)
        case ("+", (Constant(0), kept) | (kept, Constant(0))) | ("-", (kept, Constant(0))):
            return kept
        case ("*", (Constant(1), kept) | (kept, Constant(1))) | ("/" | "**", (kept, Constant(1))):
            return kept
        case "/", (Constant(0), right) if right != Constant(0.0):
            return Constant(0.0)
        case "where", (_, then, otherwise) if then == otherwise:
            return then
        case "+" | "-" | "*" | "/", (Constant(x), Constant(y)) if function != "/" or y:
            if isfinite(value := ARITHMETIC[function](x, y)):
                return Constant(value)
        case _:
            pass
    return Call(function, arguments)


# How tightly each form binds, as in Python.
_OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _UNARY, _POWER, _ATOM = range(9)
_BINDING = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "//": _PRODUCT, "%": _PRODUCT}


def text(tree: Tree, binding: int = _OR) -> str:
    """The tree as an expression, in parentheses where it binds less tightly than ``binding``."""
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
        case Call("neg", (operand,)):
            return _UNARY, f"-{text(operand, _UNARY)}"
        case Call("not", (operand,)):
            return _NOT, f"not {text(operand, _NOT)}"
        case Call("**", (base, exponent)):
            return _POWER, f"{text(base, _ATOM)} ** {text(exponent, _UNARY)}"
        case Call("and" | "or" as symbol, operands):
            own = _AND if symbol == "and" else _OR
            return own, f" {symbol} ".join(text(operand, own + 1) for operand in operands)
        case Call(symbol, (left, right)) if symbol in _BINDING:
            own = _BINDING[symbol]
            return own, f"{text(left, own)} {symbol} {text(right, own + 1)}"
        case Call(function, (first, *rest)) if (symbols := function.split())[0] in COMPARISONS:
            pairs = (f" {symbol} {text(each, _SUM)}" for symbol, each in zip(symbols, rest, strict=True))
            return _COMPARISON, text(first, _SUM) + "".join(pairs)
        case Call(function, arguments):
            return _ATOM, f"{function}({', '.join(map(text, arguments))})"
