"""The function table of the expression language: values by numpy or torch, ranges, monotonicity, inverses.

``Functions`` is an array library's namespace, here numpy's, from which ``operation`` takes what a call
computes, in float64. Truth is 1 or 0, so that comparisons can be multiplied and added. Division by zero and
logarithms of negative numbers give inf and nan, as in the library; ``where`` computes both of its branches.

``CALCULUS`` says of each operation where its values lie, by interval arithmetic (Moore 1966), the signs of
its derivatives, and its inverse. Ranges are sound, not complete: they contain every value, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from math import exp, inf, isnan, log, sqrt, tanh
from operator import neg
from typing import Any, Literal, TypeVar

import numpy as np

from graphs.expressions.tree import ARITHMETIC, COMPARISONS

__all__ = ["ARITIES", "CALCULUS", "Functions", "NUMPY", "Range", "namespace_functions", "operation"]

ARITIES = dict.fromkeys(
    "abs atanh ceil cos exp floor log logit round sigmoid sign sin sqrt tanh".split(), 1
) | {"clip": 3, "maximum": 2, "minimum": 2, "where": 3}
"""Every function, and how many arguments it takes: ``clip(x, lower, upper)``, ``where(test, then, else)``."""


@dataclass(frozen=True)
class Functions:
    """What an array library provides."""

    array: Callable[[Any], Any]  # a number or an array to a float64 array
    calls: Mapping[str, Callable[..., Any]]  # of ``ARITIES``, on such arrays; ``where`` gets booleans first


def namespace_functions(library: Any, array: Callable[[Any], Any]) -> Functions:
    """The functions of a namespace such as numpy or torch; what it lacks is made of what it has."""

    def clip(x: Any, lower: Any, upper: Any) -> Any:  # libraries differ where bounds cross
        return library.minimum(library.maximum(x, lower), upper)

    def sign(x: Any) -> Any:
        return library.where(x == x, library.sign(x), x)  # of nan, torch's sign is 0

    own: dict[str, Callable[[Any], Any]] = {
        "atanh": library.arctanh,  # numpy's name before 2.0
        "logit": lambda x: library.log(x) - library.log1p(-x),
        "sigmoid": lambda x: library.exp(-library.logaddexp(array(0.0), -x)),
    }
    given = {name: getattr(library, name, None) or own[name] for name in ARITIES}
    return Functions(array, {**given, "clip": clip, "sign": sign})


NUMPY = namespace_functions(np, lambda value: np.asarray(value, dtype=np.float64))
"""The functions of numpy."""


def operation(function: str, functions: Functions) -> Callable[..., Any]:
    """What a call computes, of arrays of the library."""
    if function in ARITHMETIC:
        return ARITHMETIC[function]
    if function == "neg":
        return neg
    if function in functions.calls and function != "where":
        return functions.calls[function]

    def truth(*operands: Any) -> Any:
        if function == "where":
            return functions.calls["where"](operands[0] != 0, *operands[1:])
        if function == "not":
            return functions.array(operands[0] == 0)
        if function in ("and", "or"):
            parts = [operand != 0 for operand in operands]
        else:
            pairs = zip(function.split(), operands, operands[1:], strict=False)
            parts = [COMPARISONS[symbol](x, y) for symbol, x, y in pairs]
        return functions.array(reduce(joined, parts))

    def joined(x: Any, y: Any) -> Any:
        return x | y if function == "or" else x & y

    return truth


_T = TypeVar("_T")
Sign = int | None
"""1, -1 or 0: of the slope of a strictly increasing, decreasing or constant function; None if not known."""


@dataclass(frozen=True)
class Range:
    """Values from ``low`` to ``high``."""

    low: float = -inf  # least value, -inf for no bound
    high: float = inf  # largest value, inf for no bound
    nonzero: bool = False  # whether 0 is excluded; so where the bounds say it

    def __post_init__(self) -> None:
        if self.low > 0 or self.high < 0:
            object.__setattr__(self, "nonzero", True)

    @property
    def sign(self) -> Literal[-1, 1] | None:
        """Of every value, or None where they differ or one is 0."""
        if not self.nonzero:
            return None
        return 1 if self.low >= 0 else -1 if self.high <= 0 else None

    def __neg__(self) -> Range:
        return Range(-self.high, -self.low, self.nonzero)

    def __add__(self, other: Range) -> Range:
        # inf - inf is nan, and then there is no bound.
        low, high = self.low + other.low, self.high + other.high
        same_side = (self.low >= 0 and other.low >= 0) or (self.high <= 0 and other.high <= 0)
        nonzero = same_side and (self.nonzero or other.nonzero)
        return Range(-inf if isnan(low) else low, inf if isnan(high) else high, nonzero)

    def __mul__(self, other: Range) -> Range:
        # An infinite end stands for arbitrarily large numbers: times 0 it is 0.
        ends = [x * y if x and y else 0.0 for x in (self.low, self.high) for y in (other.low, other.high)]
        return Range(min(ends), max(ends), self.nonzero and other.nonzero)

    def reciprocal(self) -> Range:
        """1 / x."""
        if self.sign is None:
            return Range()
        ends = [1 / end if end else self.sign * inf for end in (self.low, self.high)]
        return Range(min(ends), max(ends), True)

    def __pow__(self, exponent: float) -> Range:
        if exponent < 0:
            return (self**-exponent).reciprocal()
        if exponent == 0:
            return Range(1, 1)
        base = self
        if not exponent.is_integer():  # undefined below 0
            base = Range(max(self.low, 0.0), max(self.high, 0.0))
        elif exponent % 2 == 0:
            base = abs(self)
        return Range(_raised(base.low, exponent), _raised(base.high, exponent), self.nonzero)

    def __abs__(self) -> Range:
        ends = abs(self.low), abs(self.high)
        return Range(0.0 if self.low < 0 < self.high else min(ends), max(ends), self.nonzero)


def _raised(end: float, exponent: float) -> float:
    try:
        return end**exponent
    except OverflowError:
        return -inf if end < 0 and exponent % 2 == 1 else inf


def _exp(end: float) -> float:
    try:
        return exp(end)
    except OverflowError:
        return inf


def _log(end: float) -> float:
    return -inf if end <= 0 else log(end)


def _larger(x: Range, y: Range) -> Range:
    return Range(max(x.low, y.low), max(x.high, y.high), x.nonzero and y.nonzero)


def _smaller(x: Range, y: Range) -> Range:
    return -_larger(-x, -y)


def _power_sign(base: Range, exponent: float) -> Sign:
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


def _grows(x: Range) -> tuple[Sign, ...]:
    return (1,)


def _quotient_signs(x: Range, y: Range) -> tuple[Sign, Sign]:
    if y.sign is None:  # it jumps where its denominator passes 0
        return None, None
    return y.sign, (-x).sign


Of = Callable[[Range], _T] | Callable[[Range, Range], _T] | Callable[[Range, Range, Range], _T]
"""A function of the ranges of one, two or three arguments."""


@dataclass(frozen=True)
class Calculus:
    """What is known of an operation."""

    values: Of[Range]  # of the ranges of its arguments
    signs: Of[tuple[Sign, ...]] | None = None  # of its derivative in each argument; None where it has none
    inverse: str | None = None  # the function that undoes it


CALCULUS: Mapping[str, Calculus] = {
    "neg": Calculus(lambda x: -x, lambda x: (-1,)),
    "+": Calculus(lambda x, y: x + y, lambda x, y: (1, 1)),
    "-": Calculus(lambda x, y: x + -y, lambda x, y: (1, -1)),
    "*": Calculus(lambda x, y: x * y, lambda x, y: (y.sign, x.sign)),
    "/": Calculus(lambda x, y: x * y.reciprocal(), _quotient_signs),
    "//": Calculus(lambda x, y: Range()),
    "%": Calculus(lambda x, y: Range(0, y.high) if y.sign == 1 else Range()),
    "**": Calculus(lambda x, y: x**y.low, lambda x, y: (_power_sign(x, y.low), None)),
    "abs": Calculus(abs, lambda x: (1 if x.low >= 0 else -1 if x.high <= 0 else None,)),
    "atanh": Calculus(lambda x: Range(), _grows, "tanh"),
    "exp": Calculus(lambda x: Range(_exp(x.low), _exp(x.high), True), _grows, "log"),
    "log": Calculus(lambda x: Range(_log(x.low), _log(x.high)), _grows, "exp"),
    "logit": Calculus(lambda x: Range(), _grows, "sigmoid"),
    "sigmoid": Calculus(
        lambda x: Range(1 / (1 + _exp(-x.low)), 1 / (1 + _exp(-x.high)), True), _grows, "logit"
    ),
    "sqrt": Calculus(lambda x: Range(sqrt(max(x.low, 0)), sqrt(max(x.high, 0)), x.nonzero), _grows),
    "tanh": Calculus(lambda x: Range(tanh(x.low), tanh(x.high), x.nonzero), _grows, "atanh"),
    "sign": Calculus(lambda x: Range(-1, 1, x.nonzero)),
    **dict.fromkeys(("cos", "sin"), Calculus(lambda x: Range(-1, 1))),
    **dict.fromkeys(("ceil", "floor", "round"), Calculus(lambda x: Range(x.low - 1, x.high + 1))),
    "maximum": Calculus(_larger),
    "minimum": Calculus(_smaller),
    "clip": Calculus(lambda x, low, high: _smaller(_larger(x, low), high)),
    "where": Calculus(
        lambda test, x, y: Range(min(x.low, y.low), max(x.high, y.high), x.nonzero and y.nonzero)
    ),
}
"""By operation; comparisons, ``and``, ``or`` and ``not``, which are missing, are 0 or 1."""
