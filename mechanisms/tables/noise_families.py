"""Named noise of an equation: ``{normal: [0, 1]}``, a family of Pyro's distributions and its parameters.

Parameters are Pyro's, in its order: gamma takes a rate, log_normal the mean and deviation of the logarithm.
Draws come from the given generator alone, where Pyro's own would come from the global one. All values are
float64, whole numbers too. A ``Family`` is a value, not a base class: a plug-in makes one and names it by an
entry point of the group ``causalgen.noise_families``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log1p, nextafter, pi
from typing import Any, Literal, final

import pyro.distributions as dist
import torch
from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from torch import Generator, Tensor

from graphs.errors import SpecError
from graphs.expressions import Range
from mechanisms.registry import Registry
from mechanisms.seeds import normals, uniforms

__all__ = ["FAMILIES", "Family", "NoiseLaw", "NoiseSchema", "Rule", "noise_law"]

Rule = Literal["any", "positive", "probability", "share", "count", "above"]
"""What a parameter may be. At a last ``probability`` of 0 the least value is certain, of 1 the greatest."""

_RULES: Mapping[Rule, tuple[str, Callable[[float, float], bool], dict[str, Any]]] = {
    "any": ("a number", lambda value, _: True, {}),
    "positive": ("above 0", lambda value, _: value > 0, {"exclusiveMinimum": 0}),
    "probability": ("in [0, 1]", lambda value, _: 0 <= value <= 1, {"minimum": 0, "maximum": 1}),
    "share": ("in (0, 1]", lambda value, _: 0 < value <= 1, {"exclusiveMinimum": 0, "maximum": 1}),
    "count": (
        "a whole number of at least 1",
        lambda value, _: value >= 1 and float(value).is_integer(),
        {"type": "integer", "minimum": 1},
    ),
    "above": (
        "above the one before it",
        lambda value, before: value > before,
        {"$comment": "above the one before it"},
    ),
}
"""In words, of a value and the one before it, and in JSON Schema, which cannot say ``above``."""
_SMALLEST = torch.finfo(torch.float64).tiny
_LARGEST_SUPPORT = 4096


def _last(*parameters: float) -> float:
    return parameters[-1]


@final
@dataclass(frozen=True)
class Family:
    """A family of distributions of one number."""

    kind: str  #: its name
    #: What each parameter may be, by name and in order; none where they are the probabilities of 0, 1, ...,
    #: which add up to 1
    parameters: Mapping[str, Rule]
    #: Pyro's class, or a function of the same arguments: each parameter a float64 tensor ()
    distribution: Callable[..., Any]
    #: How many, from which generator, and the parameters, to a float64 tensor (n,)
    draw: Callable[..., Tensor]
    #: Parameters to the range of the values; ``nonzero`` where 0 has no density
    support: Callable[..., Range] = lambda *_: Range()
    #: Parameters to the number of values 0, 1, ..., inf if endless; None where continuous
    values: Callable[..., float] | None = None
    #: Parameters to the size of the values, in their unit; the last parameter where not given
    scale: Callable[..., float] = _last

    def __reduce__(self) -> tuple[Callable[[str], Family], tuple[str]]:
        """By name, since functions without one do not pickle."""
        return _family, (self.kind,)


def _family(kind: str) -> Family:
    return FAMILIES.get(kind)


@final
@dataclass(frozen=True)
class NoiseLaw:
    """The distribution of one noise: a family with its parameters, which have been checked."""

    family: Family
    parameters: tuple[float, ...]

    @property
    def name(self) -> str:
        """The family's."""
        return self.family.kind

    @property
    def discrete(self) -> bool:
        """Whether its values are whole numbers."""
        return self.family.values is not None

    @property
    def range(self) -> Range:
        """Where its values lie."""
        if self.family.values is not None:
            return Range(0, self.family.values(*self.parameters) - 1)
        return self.family.support(*self.parameters)

    @property
    def scale(self) -> float:
        """The size of its values, in their unit; 0 where they are whole numbers, which have no unit."""
        return 0.0 if self.discrete else self.family.scale(*self.parameters)

    @property
    def finite_support(self) -> Tensor | None:
        """(K,) float64: the values that have a probability, where there are no more than 4,096."""
        if not self.discrete or self.range.high >= _LARGEST_SUPPORT:
            return None
        values = torch.arange(int(self.range.high) + 1, dtype=torch.float64)
        if not self.family.parameters:
            return values[torch.tensor(self.parameters) > 0]
        if [*self.family.parameters.values()][-1] != "probability":
            return values
        certain = {0.0: values[:1], 1.0: values[-1:]}  # Pyro gives what is impossible a little probability
        return certain.get(self.parameters[-1], values)

    def distribution(self, device: torch.device | None = None) -> Any:
        """Pyro's distribution, of batch shape (); it checks neither its parameters nor values."""
        parameters = torch.tensor(self.parameters, dtype=torch.float64, device=device)
        arguments = parameters.unbind() if self.family.parameters else (parameters,)
        return self.family.distribution(*arguments, validate_args=False)

    def sample(self, n: int, generator: Generator) -> Tensor:
        """(n,) float64 draws, on the generator's device."""
        return self.family.draw(n, generator, *self.parameters)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, or log probability where discrete, at values of the support."""
        return self.distribution(value.device).log_prob(value)

    def bounds(self) -> tuple[float, float]:
        """Least and largest number with a density, of float64."""
        low, high = self.range.low, self.range.high
        low = _SMALLEST if low == 0 and self.range.nonzero else low
        # Half open, as torch's uniform is: the upper end has no density.
        return low, (high if self.discrete or high == inf else nextafter(high, -inf))

    def nearest(self, value: Tensor) -> Tensor:
        """The nearest number of the support; nan stays."""
        low, high = self.bounds()
        if (low, high) == (-inf, inf):
            return value
        return (value.round() if self.discrete else value).clamp(low, high)

    def supports(self, value: Tensor) -> Tensor:
        """Whether it has those values, ends of its range included; nan is let through."""
        low, high = self.range.low, self.range.high
        if not self.discrete:
            return ~((value < low) | (value > high))
        possible = self.finite_support
        if possible is not None and len(possible) <= high - low:
            return torch.isin(value, possible.to(value.device, value.dtype))
        return (value >= low) & (value <= high) & (value == value.round())

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{parameter:g}' for parameter in self.parameters)})"


def noise_law(written: Mapping[str, Sequence[float]]) -> NoiseLaw:
    """The law that an option writes.

    >>> print(noise_law({"uniform": [-1, 1]}))
    uniform(-1, 1)

    Args:
        written: one family with its parameters, finite numbers.

    Raises:
        UnknownNameError: no such family.
        MechanismError: a plug-in's family is broken; see ``Registry.get``.
        SpecError: not one family, too many or too few parameters, or one that the family cannot have.
    """
    if len(written) != 1:
        raise SpecError(f"A noise has one family, as in {{normal: [0, 1]}}; got {sorted(written) or 'none'}.")
    ((name, parameters),) = written.items()
    family = FAMILIES.get(name)
    if not family.parameters:
        _check_probabilities(name, parameters)
        return NoiseLaw(family, tuple(parameters))
    rules = family.parameters
    if len(parameters) != len(rules):
        raise SpecError(
            f"Noise family {name} takes {len(rules)} parameter(s), {', '.join(rules)}; got {[*parameters]}."
        )
    before = -inf
    for (parameter, rule), value in zip(rules.items(), parameters, strict=True):
        wanted, holds, _ = _RULES[rule]
        if not holds(value, before):
            raise SpecError(f"Noise family {name}: {parameter} must be {wanted}, got {value:g}.")
        before = value
    return NoiseLaw(family, tuple(parameters))


def _check_probabilities(name: str, parameters: Sequence[float]) -> None:
    total = sum(parameters)
    if not parameters or min(parameters) < 0 or abs(total - 1) > 1e-6:
        raise SpecError(
            f"Noise family {name} takes probabilities of 0, 1, ..., none negative, which add up to 1; "
            f"got {list(parameters)}, which add up to {total:g}."
        )


def _exponential(n: int, generator: Generator) -> Tensor:
    empty = torch.empty(n, dtype=torch.float64, device=generator.device)
    return empty.exponential_(generator=generator).clamp(min=_SMALLEST)


def _full(n: int, generator: Generator, value: float) -> Tensor:
    return torch.full((n,), value, dtype=torch.float64, device=generator.device)


def _gamma(n: int, generator: Generator, concentration: float) -> Tensor:
    # What torch's own Gamma draws with, which hands on no generator.
    concentrations = _full(n, generator, concentration)
    drawn = torch._standard_gamma(concentrations, generator=generator)  # pyright: ignore[reportPrivateImportUsage]
    return drawn.clamp(min=_SMALLEST)


def _beta(n: int, generator: Generator, one: float, other: float) -> Tensor:
    concentrations = torch.stack([_full(n, generator, one), _full(n, generator, other)], -1)
    drawn = torch._sample_dirichlet(concentrations, generator=generator)  # pyright: ignore[reportPrivateImportUsage]
    return drawn[:, 0].clamp(_SMALLEST, 1 - 2**-53)


def _laplace(n: int, generator: Generator) -> Tensor:
    return _exponential(n, generator) - _exponential(n, generator)


def _logistic(n: int, generator: Generator) -> Tensor:
    return _exponential(n, generator).log() - _exponential(n, generator).log()


def _student(n: int, generator: Generator, degrees: float) -> Tensor:
    return normals((n,), generator) * (degrees / 2 / _gamma(n, generator, degrees / 2)).sqrt()


def _binomial(n: int, generator: Generator, count: float, probability: float) -> Tensor:
    return torch.binomial(_full(n, generator, count), _full(n, generator, probability), generator=generator)


def _categorical(n: int, generator: Generator, *probabilities: float) -> Tensor:
    edges = torch.tensor(probabilities, dtype=torch.float64, device=generator.device).cumsum(0)
    # The last edge may round to less than 1, and what lies above the last possible value is impossible.
    last = max(code for code, probability in enumerate(probabilities) if probability > 0)
    return torch.bucketize(uniforms((n,), generator), edges[:last], right=True).double()


_LOCATION: Mapping[str, Rule] = {"loc": "any", "scale": "positive"}
_POSITIVE = Range(0, inf, nonzero=True)

_BUILT_IN = [
    Family(
        "bernoulli",
        {"probs": "probability"},
        dist.Bernoulli,
        lambda n, g, p: (uniforms((n,), g) < p).double(),
        values=lambda _: 2,
    ),
    Family(
        "beta",
        {"concentration1": "positive", "concentration0": "positive"},
        dist.Beta,
        _beta,
        lambda *_: Range(0, 1, nonzero=True),
        scale=lambda *_: 1.0,
    ),
    Family(
        "binomial",
        {"total_count": "count", "probs": "probability"},
        dist.Binomial,
        _binomial,
        values=lambda count, _: count + 1,
    ),
    Family("categorical", {}, dist.Categorical, _categorical, values=lambda *p: len(p)),
    Family(
        "cauchy",
        _LOCATION,
        dist.Cauchy,
        lambda n, g, loc, scale: loc + scale * (pi * (uniforms((n,), g) - 0.5)).tan(),
    ),
    Family(
        "exponential",
        {"rate": "positive"},
        dist.Exponential,
        lambda n, g, rate: _exponential(n, g) / rate,
        lambda _: _POSITIVE,
        scale=lambda rate: 1 / rate,
    ),
    Family(
        "gamma",
        {"concentration": "positive", "rate": "positive"},
        dist.Gamma,
        lambda n, g, concentration, rate: _gamma(n, g, concentration) / rate,
        lambda *_: _POSITIVE,
        scale=lambda _, rate: 1 / rate,
    ),
    Family(
        "geometric",
        {"probs": "share"},
        dist.Geometric,
        lambda n, g, p: (_exponential(n, g) / -log1p(-min(p, 1 - 2**-53))).floor(),
        values=lambda _: inf,
    ),
    Family("gumbel", _LOCATION, dist.Gumbel, lambda n, g, loc, scale: loc - scale * _exponential(n, g).log()),
    Family(
        "half_normal",
        {"scale": "positive"},
        dist.HalfNormal,
        lambda n, g, scale: scale * normals((n,), g).abs(),
        lambda _: Range(0),
    ),
    Family("laplace", _LOCATION, dist.Laplace, lambda n, g, loc, scale: loc + scale * _laplace(n, g)),
    Family(
        "log_normal",
        _LOCATION,
        dist.LogNormal,
        lambda n, g, loc, scale: (loc + scale * normals((n,), g)).exp(),
        lambda *_: _POSITIVE,
        scale=lambda loc, _: exp(min(loc, 700.0)),
    ),
    Family("logistic", _LOCATION, dist.Logistic, lambda n, g, loc, scale: loc + scale * _logistic(n, g)),
    Family("normal", _LOCATION, dist.Normal, lambda n, g, loc, scale: loc + scale * normals((n,), g)),
    Family(
        "poisson",
        {"rate": "positive"},
        dist.Poisson,
        lambda n, g, rate: torch.poisson(_full(n, g, rate), generator=g),
        values=lambda _: inf,
    ),
    Family(
        "student_t",
        {"df": "positive", **_LOCATION},
        dist.StudentT,
        lambda n, g, degrees, loc, scale: loc + scale * _student(n, g, degrees),
    ),
    Family(
        "uniform",
        {"low": "any", "high": "above"},
        dist.Uniform,
        lambda n, g, low, high: low + (high - low) * uniforms((n,), g),
        Range,
        scale=lambda low, high: max(abs(low), abs(high)),
    ),
]

FAMILIES: Registry[Family] = Registry(
    "noise family", "causalgen.noise_families", Family, {family.kind: family for family in _BUILT_IN}
)
"""The families by name."""


class NoiseSchema:
    """In the annotation of an option, its JSON Schema: noises by name, each of one family."""

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        family = {
            "title": FAMILIES.what,
            "$comment": FAMILIES.comment,
            "type": "object",
            "properties": {kind: _parameters(FAMILIES.get(kind)) for kind in FAMILIES.kinds()},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }
        return {"type": "object", "additionalProperties": family}


def _parameters(family: Family) -> JsonSchemaValue:
    """A list of the parameters; one alone needs no list."""
    if not family.parameters:
        return {"type": "array", "items": _parameter("probs", "probability"), "minItems": 1}
    each = [_parameter(name, rule) for name, rule in family.parameters.items()]
    listed = {"type": "array", "prefixItems": each, "minItems": len(each), "maxItems": len(each)}
    return listed if len(each) > 1 else {"anyOf": [each[0], listed]}


def _parameter(name: str, rule: Rule) -> JsonSchemaValue:
    return {"title": name, "type": "number", **_RULES[rule][2]}
