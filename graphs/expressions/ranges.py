"""Where a formula's values lie, and whether it grows with a name: interval arithmetic (Moore 1966).

Sound, not complete: a range contains every value (to rounding), and a direction holds strictly wherever the
formula is defined. Where a name occurs twice its occurrences count as independent, so ``u - u`` is anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, inf, isnan, log, sqrt, tanh
from typing import Literal

from graphs.expressions.algebra import reads
from graphs.expressions.tree import Binary, Call, Comparison, Constant, Logical, Name, Negative, Not, Tree

__all__ = ["Direction", "Range", "direction_in", "range_of"]

Direction = Literal["increasing", "decreasing", "constant", "unknown"]
"""Strictly increasing, strictly decreasing, without the name, or not known to be any of these."""


@dataclass(frozen=True)
class Range:
    """Values from ``low`` to ``high``.

    Attributes:
        low: least value, -inf for no bound.
        high: largest value, inf for no bound.
        nonzero: whether 0 is excluded; so where the bounds say it.
    """

    low: float = -inf
    high: float = inf
    nonzero: bool = False

    def __post_init__(self) -> None:
        if self.low > 0 or self.high < 0:
            object.__setattr__(self, "nonzero", True)

    @property
    def sign(self) -> Literal[-1, 1] | None:
        """Of every value, or None where they differ or one is 0."""
        if not self.nonzero:
            return None
        return 1 if self.low >= 0 else -1 if self.high <= 0 else None


_ANY = Range()
_TRUTH = Range(0, 1)


def range_of(tree: Tree, ranges: Mapping[str, Range]) -> Range:
    """Where the tree's values lie when names lie in ``ranges``; a name that is absent is any number."""
    match tree:
        case Constant(value):
            return Range(value, value)
        case Name(name):
            return ranges.get(name, _ANY)
        case Negative(operand):
            return _negative(range_of(operand, ranges))
        case Binary("**", base, Constant(exponent)):
            return _power(range_of(base, ranges), exponent)
        case Binary(operator, left, right):
            return _binary(operator, range_of(left, ranges), range_of(right, ranges))
        case Comparison() | Logical() | Not():
            return _TRUTH
        case Call("where", (_, then, otherwise)):
            return _hull(range_of(then, ranges), range_of(otherwise, ranges))
        case Call(function, arguments):
            return _call(function, [range_of(argument, ranges) for argument in arguments])


def direction_in(tree: Tree, name: str, ranges: Mapping[str, Range]) -> Direction:
    """How the tree depends on ``name`` when the other names are fixed and all lie in ``ranges``."""
    sign = _slope(tree, name, ranges)
    if sign is None:
        return "unknown"
    return "constant" if sign == 0 else "increasing" if sign > 0 else "decreasing"


def _slope(tree: Tree, name: str, ranges: Mapping[str, Range]) -> int | None:
    """1 where strictly increasing, -1 where decreasing, 0 where constant, None where not known."""
    if not reads(tree, name):
        return 0
    match tree:
        case Name():
            return 1
        case Negative(operand):
            return _times(_slope(operand, name, ranges), -1)
        case Binary("+", left, right):
            return _both(_slope(left, name, ranges), _slope(right, name, ranges))
        case Binary("-", left, right):
            return _both(_slope(left, name, ranges), _times(_slope(right, name, ranges), -1))
        case Binary("*" | "/" as operator, left, right):
            # The product rule: x' y + x y', for the quotient x' / y - x y' / y^2.
            one, other = range_of(left, ranges).sign, range_of(right, ranges).sign
            if operator == "/" and other is None:
                return None  # the quotient jumps where its denominator passes 0
            second = _times(_slope(right, name, ranges), one)
            return _both(
                _times(_slope(left, name, ranges), other), _times(second, -1 if operator == "/" else 1)
            )
        case Binary("**", base, Constant(exponent)):
            return _times(_slope(base, name, ranges), _power_sign(range_of(base, ranges), exponent))
        case Call("where", (test, then, otherwise)) if not reads(test, name):
            return _same(_slope(then, name, ranges), _slope(otherwise, name, ranges))
        case Call("maximum" | "minimum", (one, other)):
            return _same(_slope(one, name, ranges), _slope(other, name, ranges))
        case Call("abs", (operand,)):
            inner = range_of(operand, ranges)
            side = 1 if inner.low >= 0 else -1 if inner.high <= 0 else None
            return _times(_slope(operand, name, ranges), side)
        case Call("exp" | "log" | "sqrt" | "tanh" | "atanh" | "sigmoid" | "logit", (operand,)):
            return _slope(operand, name, ranges)
        case _:
            return None


def _times(slope: int | None, sign: int | None) -> int | None:
    """The slope of a function times something of that sign."""
    if slope == 0:
        return 0
    return None if slope is None or sign is None else slope * sign


def _both(one: int | None, other: int | None) -> int | None:
    """The slope of a sum."""
    if one == 0 or other == 0:
        return other if one == 0 else one
    return one if one == other else None


def _same(one: int | None, other: int | None) -> int | None:
    """The slope of what is one or the other: a part that stays constant would not be strict."""
    return one if one == other else None


def _power_sign(base: Range, exponent: float) -> int | None:
    """The sign of the slope of ``base ** exponent`` in base, where it has one."""
    if exponent == 0:
        return None
    odd = exponent % 2 == 1
    if exponent < 0:  # jumps at 0
        side = base.sign if exponent.is_integer() else 1
        return None if side is None else -1 if odd or side == 1 else 1
    if odd or not exponent.is_integer() or base.low >= 0:
        return 1
    return -1 if base.high <= 0 else None


def _negative(one: Range) -> Range:
    return Range(-one.high, -one.low, one.nonzero)


def _binary(operator: str, one: Range, other: Range) -> Range:
    match operator:
        case "+":
            return _sum(one, other)
        case "-":
            return _sum(one, _negative(other))
        case "*":
            return _product(one, other)
        case "/":
            return _product(one, _reciprocal(other))
        case "%" if other.sign == 1:
            return Range(0, other.high)
        case _:
            return _ANY


def _sum(one: Range, other: Range) -> Range:
    # inf - inf is nan, and then there is no bound.
    low, high = one.low + other.low, one.high + other.high
    same_side = (one.low >= 0 and other.low >= 0) or (one.high <= 0 and other.high <= 0)
    return Range(
        -inf if isnan(low) else low,
        inf if isnan(high) else high,
        same_side and (one.nonzero or other.nonzero),
    )


def _product(one: Range, other: Range) -> Range:
    ends = [_times_ends(x, y) for x in (one.low, one.high) for y in (other.low, other.high)]
    return Range(min(ends), max(ends), one.nonzero and other.nonzero)


def _times_ends(x: float, y: float) -> float:
    """x * y, where an infinite end stands for arbitrarily large numbers: times 0 it is 0."""
    return 0.0 if 0 in (x, y) else x * y


def _reciprocal(one: Range) -> Range:
    if one.sign is None:
        return _ANY
    ends = [(inf if one.sign == 1 else -inf) if end == 0 else 1 / end for end in (one.low, one.high)]
    return Range(min(ends), max(ends), True)


def _power(base: Range, exponent: float) -> Range:
    if exponent < 0:
        return _reciprocal(_power(base, -exponent))
    if exponent == 0:
        return Range(1, 1)
    low, high = base.low, base.high
    if not exponent.is_integer():
        low, high = max(low, 0.0), max(high, 0.0)  # undefined below 0
    elif exponent % 2 == 0:
        low, high = (0.0 if low < 0 < high else min(abs(low), abs(high))), max(abs(low), abs(high))
    return Range(_raised(low, exponent), _raised(high, exponent), base.nonzero)


def _raised(end: float, exponent: float) -> float:
    try:
        return end**exponent
    except OverflowError:
        return -inf if end < 0 and exponent % 2 == 1 else inf


def _hull(one: Range, other: Range) -> Range:
    return Range(min(one.low, other.low), max(one.high, other.high), one.nonzero and other.nonzero)


def _call(function: str, arguments: list[Range]) -> Range:
    first = arguments[0]
    match function:
        case "abs":
            nearest = 0.0 if first.low < 0 < first.high else min(abs(first.low), abs(first.high))
            return Range(nearest, max(abs(first.low), abs(first.high)), first.nonzero)
        case "exp":
            return Range(_exp(first.low), _exp(first.high), True)
        case "log":
            return Range(_log(first.low), _log(first.high))
        case "sqrt":
            return Range(sqrt(max(first.low, 0)), sqrt(max(first.high, 0)), first.nonzero)
        case "tanh":
            return Range(tanh(first.low), tanh(first.high), first.nonzero)
        case "sigmoid":
            return Range(1 / (1 + _exp(-first.low)), 1 / (1 + _exp(-first.high)), True)
        case "sin" | "cos" | "sign":
            return Range(-1, 1, function == "sign" and first.nonzero)
        case "ceil" | "floor" | "round":
            return Range(first.low - 1, first.high + 1)
        case "maximum":
            return _larger(*arguments)
        case "minimum":
            return _smaller(*arguments)
        case "clip":
            return _smaller(_larger(first, arguments[1]), arguments[2])
        case _:
            return _ANY


def _larger(one: Range, other: Range) -> Range:
    return Range(max(one.low, other.low), max(one.high, other.high), one.nonzero and other.nonzero)


def _smaller(one: Range, other: Range) -> Range:
    return Range(min(one.low, other.low), min(one.high, other.high), one.nonzero and other.nonzero)


def _exp(end: float) -> float:
    try:
        return exp(end)
    except OverflowError:
        return inf


def _log(end: float) -> float:
    return -inf if end <= 0 else log(end)
