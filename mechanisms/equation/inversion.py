"""The noise behind a value: x = f(u, pa) inverted for one noise u, or enumerated over noises of few values.

    affine      u = (x - intercept) / slope, where the slope is not 0
    by formula  f unwound from the outside in, where u occurs once
    by search   where f is strictly monotone in u: the least float64 u whose f(u) reaches x, in 64 halvings

A solution is a candidate: the caller checks that f takes it to x, as sqrt(u) = -1 has none. In rows where f
does not depend on u, as a * exp(u) where a = 0, there is nothing to solve.

Noises of few values, 4,096 combinations at most, are enumerated instead: each combination that gives x has
its probability.

The scale of a value, the magnitude of the terms behind it, says what rounding may do to it:

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
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from graphs.expressions import Expression, Range, namespace_functions
from graphs.expressions.functions import operation
from graphs.expressions.tree import Call, Constant, Name, Tree, reads
from graphs.variables import Categorical, Continuous, Integer, Variable
from graphs.variables.numeric import limits
from mechanisms.tables.noise_families import NoiseLaw

__all__ = [
    "Combinations",
    "Inversion",
    "TORCH",
    "find_combinations",
    "find_inversion",
    "find_ranges",
    "fractions",
    "not_whole",
    "scale_of",
    "why_no_abduction",
]

TORCH = namespace_functions(torch, lambda value: torch.as_tensor(value, dtype=torch.float64))
"""For ``Expression.evaluate``; gradients flow, and the result is on the device of the values."""

_MOST_COMBINATIONS = 4096

_STARTS = 16  # draws of the noise that say where an equation has values, such as log(u + 5) + u

Values = Mapping[str, Tensor]


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


@dataclass(frozen=True)
class Inversion:
    """How to solve one equation for its noise.

    ``solve`` takes x (N,) and the parents to candidates for u, (N,), nan or inf where there is none;
    ``derivative`` the parents and u to df/du, (N,); ``free`` the parents to the rows, (N,) or (), whose value
    does not depend on the noise, and is None where there are none, so that every value determines its noise.
    """

    solve: Callable[[Tensor, Values], Tensor]
    derivative: Callable[[Values, Tensor], Tensor]
    free: Callable[[Values], Tensor] | None = None


def find_ranges(parents: Mapping[str, Variable], laws: Mapping[str, NoiseLaw]) -> dict[str, Range]:
    """Where the values of parents and noises lie, by name."""
    return {name: _range(parent) for name, parent in parents.items()} | {
        name: law.range for name, law in laws.items()
    }


def _range(variable: Variable) -> Range:
    if isinstance(variable, Categorical):
        return Range(0, variable.size - 1)
    assert isinstance(variable, Continuous | Integer), "checked by Equation.make"
    return Range(*limits(variable))


def find_inversion(
    expression: Expression, noise: str, law: NoiseLaw, ranges: Mapping[str, Range]
) -> Inversion | None:
    """The first way from x = f(pa, u) to u that works, or None."""
    form = expression.affine(noise)
    if form is not None:
        slope, intercept = (part.compile(TORCH) for part in form)
        return Inversion(
            solve=lambda x, values: (x - intercept(values)) / slope(values),
            derivative=lambda values, u: slope(values).to(u.device).expand_as(u),
            free=None if form[0].range(ranges).nonzero else lambda values: slope(values) == 0,
        )
    solve = _by_formula(expression, noise) or _by_search(expression, noise, law, ranges)
    if solve is None:
        return None
    strict = expression.direction(noise, ranges) != "unknown" or _one_to_one(expression.tree, noise, ranges)
    slope = expression.derivative(noise).compile(TORCH)
    return Inversion(
        solve,
        derivative=lambda values, u: slope({**values, noise: u}).to(u.device).expand_as(u),
        free=None if strict else _constant_rows(expression, noise, law),
    )


def _one_to_one(tree: Tree, noise: str, ranges: Mapping[str, Range]) -> bool:
    """Whether a tree with an inverse never multiplies what holds the noise by 0."""
    match tree:
        case Call("*" | "/" as operator, (left, right)):
            inner, other = (left, right) if reads(left, noise) else (right, left)
            safe = (operator == "/" and inner is left) or Expression(other).range(ranges).nonzero
            return safe and _one_to_one(inner, noise, ranges)
        case Call(_, arguments):
            return all(_one_to_one(each, noise, ranges) for each in arguments if reads(each, noise))
        case _:
            return isinstance(tree, Name)


def _constant_rows(expression: Expression, noise: str, law: NoiseLaw) -> Callable[[Values], Tensor]:
    """Rows where several draws of the noise give one value; what has an inverse is then constant in it."""
    function = expression.compile(TORCH)
    # Three that differ.
    draws = torch.arange(3.0).double() if law.discrete else law.sample(3, torch.Generator().manual_seed(0))

    def free(values: Values) -> Tensor:
        first, *others = (function({**values, noise: draw}) for draw in draws)
        return torch.stack([other == first for other in others]).all(0)

    return free


def _by_formula(expression: Expression, noise: str) -> Callable[[Tensor, Values], Tensor] | None:
    """The equation unwound, where it can be."""
    value = "value"
    while value in expression.names:
        value += "_"
    inverse = expression.inverse(noise, value)
    if inverse is None:
        return None
    formula = inverse.compile(TORCH)
    return lambda x, values: formula({**values, value: x})


def _by_search(
    expression: Expression, noise: str, law: NoiseLaw, ranges: Mapping[str, Range]
) -> Callable[[Tensor, Values], Tensor] | None:
    """Bisection, where the equation is monotone."""
    direction = expression.direction(noise, ranges)
    if direction not in ("increasing", "decreasing"):
        return None
    sign = 1 if direction == "increasing" else -1
    compiled, slope = expression.compile(TORCH), expression.derivative(noise).compile(TORCH)
    starts = law.sample(_STARTS, torch.Generator().manual_seed(0)).double().sort().values

    def solve(x: Tensor, values: Values) -> Tensor:
        def function(u: Tensor) -> Tensor:
            return sign * compiled({**values, noise: u})

        u = _search(function, sign * x, law.bounds(), starts.to(x.device))
        if torch.is_grad_enabled():
            # Newton's step, 0 here, carries the gradient (the implicit function theorem).
            step = (x - compiled({**values, noise: u})) / slope({**values, noise: u})
            u = u + (step - step.detach()).nan_to_num(0.0)
        return u

    return solve


@torch.no_grad()
def _search(
    function: Callable[[Tensor], Tensor], target: Tensor, bounds: tuple[float, float], starts: Tensor
) -> Tensor:
    """The least u in ``bounds`` with function(u) >= target, or the upper bound; function increases.

    It may have no value beyond either end of an interval, which holds some of the ``starts``, if any.
    """
    low, high = (_order(torch.full_like(target, bound)) for bound in bounds)
    inside: Tensor | None = None
    for _ in range(64):
        middle = (low & high) + ((low ^ high) >> 1)  # the mean, without overflow
        u = _number(middle)
        found = function(u)
        below = found < target
        if bool((lost := found.isnan()).any()):
            if inside is None:
                defined = ~torch.stack([function(start.expand_as(target)) for start in starts]).isnan()
                inside = starts[defined.double().argmax(0)]
            below = torch.where(lost, u < inside, below)
        low = torch.minimum(torch.where(below, middle + 1, low), high)
        high = torch.where(below, high, middle)
    return _number(high)


def _order(number: Tensor) -> Tensor:
    """float64 to int64 of the same order, one apart from one number to the next."""
    bits = number.view(torch.int64)
    return torch.where(bits < 0, torch.iinfo(torch.int64).min - bits, bits)


def _number(order: Tensor) -> Tensor:
    """The inverse of ``_order``."""
    return torch.where(order < 0, torch.iinfo(torch.int64).min - order, order).view(torch.float64)


class Combinations:
    """Every combination of the values of some independent noises, (K, noises) float64."""

    def __init__(self, laws: Mapping[str, NoiseLaw], values: Tensor) -> None:
        self.laws, self.values = dict(laws), values

    def __len__(self) -> int:
        return len(self.values)

    def log_probabilities(
        self, fits: Callable[[Mapping[str, Tensor]], Tensor], device: torch.device
    ) -> Tensor:
        """(N, K) log probability of each combination that fits, -inf of the others.

        ``fits`` takes noises by name, (K,) each, to whether they give the value, (N, K).
        """
        noise = self._noise(self.values.to(device))
        logs = torch.stack([law.log_prob(noise[name]) for name, law in self.laws.items()])
        return torch.where(fits(noise), logs.sum(0), -torch.inf)

    def chosen(self, index: Tensor) -> dict[str, Tensor]:
        """The noises of the combinations of those numbers, (N,) each."""
        return self._noise(self.values.to(index.device)[index])

    def _noise(self, rows: Tensor) -> dict[str, Tensor]:
        """(N, noises) -> noises by name, (N,) each."""
        return dict(zip(self.laws, rows.unbind(1), strict=True))


def find_combinations(laws: Mapping[str, NoiseLaw]) -> Combinations | None:
    """All combinations; None where there is no noise, or too many of them."""
    supports = [law.finite_support for law in laws.values()]
    found = [support for support in supports if support is not None]
    if not found or len(found) < len(supports) or prod(map(len, found)) > _MOST_COMBINATIONS:
        return None
    return Combinations(laws, torch.cartesian_prod(*found).reshape(-1, len(found)))


def fractions(laws: Mapping[str, NoiseLaw]) -> list[str]:
    """The noises whose values are no whole numbers."""
    return [name for name, law in laws.items() if not law.discrete]


def not_whole(equation: str, laws: Mapping[str, NoiseLaw], variable: Variable) -> str:
    """Why noise makes an integer's values fractions."""
    name = fractions(laws)[0]
    return (
        f"The equation {equation!r} gives no whole numbers, since its noise {name} ~ {laws[name]} is "
        f"continuous, but its variable is {variable.describe()}. Write round(...) or floor(...), or give the "
        "noise a family of whole numbers, such as poisson."
    )


def why_no_abduction(equation: str, laws: Mapping[str, NoiseLaw], variable: Variable) -> str:
    """Why the noise cannot be recovered."""
    names = list(laws)
    if len(names) > 1:
        why = f"{len(names)} noises, {', '.join(names)}, and one value does not tell them apart"
        remedy = f"make all but one of them nodes of their own (a node for {names[0]!r}, its own equation)"
    else:
        why = f"its noise {names[0]!r} in a form that is neither affine nor known to be monotone"
        remedy = "write it so that each value comes from one value of the noise"
        if isinstance(variable, Integer):
            remedy = "add whole noise to it (poisson, geometric, binomial), use mechanism 'flow'"
    return (
        f"The equation {equation!r} has {why}. To ask for counterfactuals, {remedy}, or intervene on this "
        "node. Sampling and interventions work as it is."
    )
