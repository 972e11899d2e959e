"""A symbolic expression: its values, its text, its range, and its affine form, inverse and monotonicity.

affine     expression == slope * name + intercept
inverse    expression == value  implies  name == inverse(value, other names)
direction  strictly increasing or decreasing, by the chain rule for the signs of derivatives

All are sound, not complete: what is not seen is None or "unknown". Where a name occurs twice, its occurrences
count as independent in a range, so ``u - u`` is anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from graphs.errors import UnknownNameError
from graphs.expressions.functions import CALCULUS, NUMPY, Functions, Range, Sign, operation
from graphs.expressions.parser import parse_tree
from graphs.expressions.tree import Call, Constant, Name, Tree, build, names, reads, text

__all__ = ["Direction", "Expression", "parse_expression"]

Direction = Literal["increasing", "decreasing", "constant", "unknown"]
"""Strictly increasing, strictly decreasing, without the name, or not known to be any of these."""

Compiled = Callable[[Mapping[str, Any]], Any]
"""Values by name to the value of the expression."""


@dataclass(frozen=True)
class Expression:
    """A formula in named values. Immutable, and equal to any other of the same tree."""

    tree: Tree

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names it reads, sorted."""
        return tuple(sorted(set(names(self.tree))))

    def evaluate(self, values: Mapping[str, Any], functions: Functions = NUMPY) -> Any:
        """Its value: a float64 array of the shape that the values broadcast to.

        Args:
            values: a number or an array for each name; further names are ignored.
            functions: of the array library.

        Raises:
            UnknownNameError: a name has no value.
        """
        return self.compile(functions)(values)

    def compile(self, functions: Functions = NUMPY) -> Compiled:
        """``evaluate`` as a function of the values alone, to be called many times."""
        compiled = _compiled(self.tree, functions)

        def evaluate(values: Mapping[str, Any]) -> Any:
            with np.errstate(all="ignore"):
                return functions.array(compiled(values))

        return evaluate

    def affine(self, name: str) -> tuple[Expression, Expression] | None:
        """(slope, intercept), both without ``name``, or None where it is not visibly affine in it.

        >>> [str(part) for part in parse_expression("2*a - (u + a) / b").affine("u")]
        ['-(1 / b)', '2 * a - a / b']
        """
        found = _affine(self.tree, name)
        return None if found is None else (Expression(found[0]), Expression(found[1]))

    def inverse(self, name: str, value: str) -> Expression | None:
        """``name`` as an expression of ``value``, this expression's value, and of the other names.

        None where the name occurs more than once, or under what has no inverse. Where it is found, every
        solution of "expression == value" is its value, but not conversely: ``sqrt(u) == -1`` has none, so
        evaluate this expression at what it gives.

        >>> str(parse_expression("a - exp(3 * u)").inverse("u", "y"))
        'log(a - y) / 3'
        """
        if sum(each == name for each in names(self.tree)) != 1:
            return None
        tree, found = self.tree, Name(value)
        while tree != Name(name):  # from the root to the name's one place
            assert isinstance(tree, Call)
            place = next(i for i, argument in enumerate(tree.arguments) if reads(argument, name))
            found = _solution(tree, place, found)
            if found is None:
                return None
            tree = tree.arguments[place]
        return Expression(found)

    def direction(self, name: str, ranges: Mapping[str, Range] | None = None) -> Direction:
        """Whether it is strictly increasing or decreasing in ``name``, "constant" where ``name`` is absent.

        It holds wherever the expression is defined. "unknown" says nothing.

        Args:
            name: the others are held fixed.
            ranges: what values names can have; any number by default.

        >>> parse_expression("u**3 + exp(a) * u").direction("u")
        'increasing'
        """
        sign = _slope(self.tree, name, ranges or {})
        if sign is None:
            return "unknown"
        return "constant" if sign == 0 else "increasing" if sign > 0 else "decreasing"

    def range(self, ranges: Mapping[str, Range] | None = None) -> Range:
        """Where its values lie, at most, when its names lie in ``ranges``."""
        return _range(self.tree, ranges or {})

    def __str__(self) -> str:
        return text(self.tree)

    def __repr__(self) -> str:
        return f"Expression({str(self)!r})"


def parse_expression(written: str, names: Collection[str] | None = None) -> Expression:
    """The expression that a text writes. Nothing of the text is run.

    Args:
        written: as in "2*a - 0.5*b + exp(u)"; see ``graphs.expressions.parser`` for the language.
        names: the names it may read; None allows any.

    Raises:
        SpecError: the text is not in the language, or reads another name; the message says where.
    """
    return Expression(parse_tree(written, names))


def _compiled(tree: Tree, functions: Functions) -> Compiled:
    match tree:
        case Constant(number):
            constant = functions.array(number)  # an array, since Python's own numbers would raise on 1 / 0
            return lambda values: constant
        case Name(name):
            return lambda values: functions.array(_look_up(name, values))
        case Call("**", (base, Constant(exponent))):
            inner = _compiled(base, functions)
            return lambda values: inner(values) ** exponent
        case Call(function, arguments):
            compute, parts = (
                operation(function, functions),
                [_compiled(each, functions) for each in arguments],
            )
            return lambda values: compute(*[part(values) for part in parts])


def _look_up(name: str, values: Mapping[str, Any]) -> Any:
    UnknownNameError.check("name", name, values, where="an expression")
    return values[name]


def _affine(tree: Tree, name: str) -> tuple[Tree, Tree] | None:
    """(slope, intercept), both without ``name``; None where the tree is not visibly affine in it."""
    if not reads(tree, name):
        return Constant(0.0), tree
    match tree:
        case Name():
            return Constant(1.0), Constant(0.0)
        case Call("neg" | "+" | "-" as function, operands):
            forms = [_affine(operand, name) for operand in operands]
        case Call("*" as function, (left, right)) if not reads(left, name):
            forms = [(left, left), _affine(right, name)]
        case Call("*" | "/" as function, (left, right)) if not reads(right, name):
            forms = [_affine(left, name), (right, right)]
        case Call("**", (base, Constant(1))):
            return _affine(base, name)
        case Call("where" as function, (test, then, otherwise)) if not reads(test, name):
            forms = [(test, test), _affine(then, name), _affine(otherwise, name)]
        case _:
            return None
    found = [form for form in forms if form is not None]
    if len(found) < len(forms):
        return None
    slopes, intercepts = zip(*found, strict=True)
    return build(function, *slopes), build(function, *intercepts)


def _solution(tree: Call, place: int, value: Tree) -> Tree | None:
    """The operand at ``place`` where the call has this value and the other operand is known."""
    other = tree.arguments[1 - place] if len(tree.arguments) == 2 else None
    match tree.function, other:
        case "neg", _:
            return build("neg", value)
        case "sqrt", _:
            return build("**", value, Constant(2.0))
        case "**", Constant(exponent):
            return _root(value, exponent)
        case "+" | "*", Constant() | Name() | Call():
            return build("-" if tree.function == "+" else "/", value, other)
        case "-" | "/", Constant() | Name() | Call():
            if place == 1:
                return build(tree.function, other, value)
            return build("+" if tree.function == "-" else "*", value, other)
        case function, None if function in CALCULUS and (inverse := CALCULUS[function].inverse):
            return build(inverse, value)
        case _:
            return None


def _root(value: Tree, exponent: float) -> Tree | None:
    """x of ``x ** exponent == value``; None for even exponents, which have two."""
    if exponent == 1:
        return value
    if exponent % 2 == 0:
        return None
    root = Constant(1 / exponent)
    if not exponent.is_integer():  # defined for x >= 0 alone
        return build("**", value, root)
    return build("*", build("sign", value), build("**", build("abs", value), root))


def _range(tree: Tree, ranges: Mapping[str, Range]) -> Range:
    """Where the tree's values lie when names lie in ``ranges``; a name that is absent is any number."""
    match tree:
        case Constant(value):
            return Range(value, value)
        case Name(name):
            return ranges.get(name, Range())
        case Call(function, arguments) if function in CALCULUS:
            return CALCULUS[function].values(*(_range(argument, ranges) for argument in arguments))
        case _:
            return Range(0, 1)


def _slope(tree: Tree, name: str, ranges: Mapping[str, Range]) -> Sign:
    """1 where strictly increasing in ``name``, -1 where decreasing, 0 where constant, None if unknown."""
    if not reads(tree, name):
        return 0
    match tree:
        case Name() | Constant():
            return 1
        case Call("where", (test, *parts)) if not reads(test, name):
            terms = {_slope(part, name, ranges) for part in parts}  # one that is constant would not be strict
        case Call("maximum" | "minimum", parts):
            terms = {_slope(part, name, ranges) for part in parts}
        case Call(function, arguments):
            known = CALCULUS.get(function)
            if known is None or known.signs is None:
                return None
            # The chain rule: the sum over arguments of partial derivative times slope, in signs.
            signs = known.signs(*(_range(argument, ranges) for argument in arguments))
            slopes = [_slope(argument, name, ranges) for argument in arguments]
            pairs = [pair for pair in zip(slopes, signs, strict=True) if pair[0] != 0]
            terms = {None if slope is None or sign is None else slope * sign for slope, sign in pairs}
    return terms.pop() if len(terms) == 1 else None
