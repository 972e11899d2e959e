"""A symbolic expression: its values, text, range, derivative, affine form, inverse and monotonicity.

derivative  d expression / d name, by the chain rule
affine      expression == slope * name + intercept
inverse     expression == value  implies  name == inverse(value, other names)
direction   strictly increasing or decreasing, by the chain rule for the signs of derivatives

The last three are sound, not complete: what is not seen is None or "unknown". Where a name occurs twice, its
occurrences count as independent in a range, so ``u - u`` is anything.
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

        Values are a number or an array for each name; further names are ignored.
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

    def derivative(self, name: str) -> Expression:
        """Its derivative in ``name``, the others held fixed; 0 where it steps, and of truth values.

        Of a condition it is that of the branch taken, whatever the other one gives, as at overflow: what is
        traced through the values (automatic differentiation in reverse) has 0 * inf there.

        >>> str(parse_expression("a * exp(2 * u) if a > 0 else u").derivative("u"))
        'where(a > 0, a * (exp(2 * u) * 2), 1)'
        """
        return Expression(_derivative(self.tree, name))

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

        It holds wherever the expression is defined, the other names held fixed. "unknown" says nothing.
        Names can have the values in ``ranges``, by default any number.

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


def parse_expression(
    written: str, names: Collection[str] | None = None, *, nodes: Collection[str] = ()
) -> Expression:
    """The expression that a text writes. Nothing of the text is run.

    Args:
        written: as in "2*a - 0.5*b + exp(u)"; see ``graphs.expressions.parser`` for the language.
        names: the names it may read; None allows any.
        nodes: where any, those that may be meant: one called "not" is refused, not taken for the word.

    Raises:
        SpecError: the text is not in the language, or reads another name; the message says where.
    """
    return Expression(parse_tree(written, names, nodes))


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
            compute = operation(function, functions)
            parts = [_compiled(each, functions) for each in arguments]
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


def _derivative(tree: Tree, name: str) -> Tree:
    """The tree's derivative in ``name``."""
    if not reads(tree, name):
        return Constant(0.0)
    match tree:
        case Call("where", (test, then, otherwise)):
            return build("where", test, _derivative(then, name), _derivative(otherwise, name))
        case Call("maximum" | "minimum" as function, (left, right)):
            test = Call(">=" if function == "maximum" else "<=", (left, right))
            return build("where", test, _derivative(left, name), _derivative(right, name))
        case Call("clip", (x, low, high)):
            return _derivative(Call("minimum", (Call("maximum", (x, low)), high)), name)
        case Call(_, arguments):
            total: Tree = Constant(0.0)
            for argument, partial in zip(arguments, _partials(tree), strict=False):  # none where it steps
                total = build("+", total, build("*", partial, _derivative(argument, name)))
            return total
        case _:
            return Constant(1.0)


def _partials(tree: Call) -> tuple[Tree, ...]:
    """The derivatives of a call in its arguments, as accurate as the call; none of a step function."""
    one = Constant(1.0)
    match tree.function, tree.arguments:
        case "neg", _:
            return (Constant(-1.0),)
        case "+", _:
            return one, one
        case "-", _:
            return one, Constant(-1.0)
        case "*", (x, y):
            return y, x
        case "/", (_, y):
            return build("/", one, y), build("neg", build("/", tree, y))
        case "%", (x, y):
            return one, build("neg", Call("//", (x, y)))
        case "**", (x, Constant(exponent)):
            return (build("*", Constant(exponent), build("**", x, Constant(exponent - 1))),)
        case "abs", (x,):
            return (Call("sign", (x,)),)
        case "exp", _:
            return (tree,)
        case "log", (x,):
            return (build("/", one, x),)
        case "sqrt", _:
            return (build("/", Constant(0.5), tree),)
        case "logit", (x,):
            return (build("/", one, build("*", x, build("-", one, x))),)
        case "sigmoid", (x,):
            return (_bell(x),)
        case "tanh", (x,):
            return (build("*", Constant(4.0), _bell(build("*", Constant(2.0), x))),)
        case "atanh", (x,):
            return (build("/", one, build("*", build("-", one, x), build("+", one, x))),)
        case "sin", (x,):
            return (Call("cos", (x,)),)
        case "cos", (x,):
            return (build("neg", Call("sin", (x,))),)
        case _:
            return ()


def _bell(x: Tree) -> Tree:
    """sigmoid(x) * sigmoid(-x), which is sigmoid's derivative, and in neither tail 0 by rounding."""
    return build("*", Call("sigmoid", (x,)), Call("sigmoid", (build("neg", x),)))


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
