"""``x ~ Poisson(g m(pa))``: a count, by Poisson or negative binomial regression with a logarithmic link.

    m(pa) = e exp(b + c(pa) w)    c: one-hot categories and standardised numbers; e: the exposure, or 1
    g ~ Gamma(r, r)               how prone the row is, of mean 1 and variance 1 / r; 1 for Poisson
    x = min{k: F(k; g m) > v}     v uniform, F the distribution function of a Poisson variable

so that x, g left out, is negative binomial of mean m and variance m + m^2 / r (Greenwood & Yule 1920; Cameron
& Trivedi, Regression Analysis of Count Data, 2013). Given x the noise has a closed form: g is Gamma(r + x,
r + m), and v then uniform on the step [F(x - 1; g m), F(x; g m)). A row keeps both, so that its count does
not fall where its causes raise m.

The uniform is kept as t = v below 1/2 and t = v - 1 above, which a float tells where v is near 1, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import ClassVar, Literal, final

import pyro.distributions as dist
import torch
from pydantic import Field
from torch import Tensor

from graphs.errors import DomainError, EvidenceError, MechanismError, UnknownNameError
from graphs.variables import Continuous, Integer, Variable
from mechanisms.base import Abducted, Mechanism, Noise, Parents
from mechanisms.conditioning import Conditioning
from mechanisms.options import TrainedSpec
from mechanisms.seeds import uniforms
from mechanisms.tables.regression import minimise
from mechanisms.training import Training

__all__ = ["Counts", "CountsMechanism"]

_MOST = 53 * log(2)
"""Logarithm of the largest mean: beyond, float64 does not hold every whole number."""

_LEAST_SHAPE, _GREATEST_SHAPE = 1e-3, 1e6
"""Between which r is fitted; at the greatest, a count of 10,000 is 1 % more variable than Poisson's."""

_STEPS = 200


class Counts(TrainedSpec, frozen=True):
    """A count, a whole number from 0 on, whose mean its parents multiply.

    It needs fewer rows than a flow where its form is right: each unit of a number multiplies the mean alike.

    Attributes:
        law: "negative_binomial", of variance above the mean, or "poisson", of variance equal to it.
        smoothing: weight s of the penalty s (|w|^2 + (b - log mean)^2) / 2, w of standardised numbers, which
            keeps finite what rows leave open, as where all counts of a category are 0.
        exposure: the parent that the mean is in proportion to, a number above 0, as of years at risk or of
            inhabitants: the count is then regressed by its rate (an offset). None where there is none.
        training: which share of the rows to hold out, ``validation``; nothing else of it is used.
    """

    learned: ClassVar[tuple[str, ...]] = ("law", "smoothing", "exposure")
    kind: Literal["counts"] = "counts"
    training: Training | None = Training()
    law: Literal["negative_binomial", "poisson"] = "negative_binomial"
    smoothing: float = Field(default=1.0, ge=0)
    exposure: str | None = None

    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> CountsMechanism:
        """The mechanism for one count and its parents.

        Raises:
            MechanismError: the variable is not ``Integer(lower=0)``, a parent is an image, or ``exposure`` is
                no single number.
            UnknownNameError: ``exposure`` is no parent.
        """
        if not (isinstance(variable, Integer) and variable.counts):
            raise MechanismError(
                "Mechanism 'counts' needs an integer variable with lower 0 and no upper, got "
                f"{variable.describe()}. Use 'flow'."
            )
        if self.exposure is not None:
            UnknownNameError.check("parent", self.exposure, parents, where="exposure")
            exposed = parents[self.exposure]
            if not isinstance(exposed, Continuous | Integer) or exposed.event_shape:
                got = exposed.describe()
                raise MechanismError(
                    f"exposure: {self.exposure!r} is {got}, expected a parent of one number."
                )
        return CountsMechanism(self, variable, parents)


@final
class CountsMechanism(Mechanism):
    """Noise: ``uniform`` (N,), t as above, and of a negative binomial ``rate`` (N,), g; float64."""

    abduction = "posterior"
    deterministic = False
    intercept: Tensor
    slope: Tensor
    shape: Tensor
    spec: Counts

    def __init__(self, spec: Counts, variable: Integer, parents: Mapping[str, Variable]) -> None:
        super().__init__(spec, variable, parents)
        self.conditioning = Conditioning(
            {name: parent for name, parent in parents.items() if name != spec.exposure}
        )
        self.dispersed = spec.law == "negative_binomial"
        self.register_buffer("intercept", torch.zeros((), dtype=torch.float64))
        self.register_buffer("slope", torch.zeros(self.conditioning.width, dtype=torch.float64))
        self.register_buffer("shape", torch.ones((), dtype=torch.float64))

    def log_mean(self, parents: Parents, rows: int) -> Tensor:
        """(N,) log m(pa). ``rows`` is N.

        Raises:
            DomainError: a mean beyond 2**53, or an exposure that is not above 0.
        """
        found = self.intercept + self.conditioning(parents, rows).to(self.slope.dtype) @ self.slope
        found = found.double()  # a count needs its digits, whatever the mechanism was cast to
        found = found + self._log_exposure(parents)
        if rows and not bool((found <= _MOST).all()):
            row = int((~(found <= _MOST)).nonzero()[0])
            raise DomainError(
                f"Row {row}: its parents lead to a mean count of exp({float(found[row]):.3g}), expected at "
                "most 2**53. They are far from what was seen in fitting: check their units."
            )
        return found

    def _log_exposure(self, parents: Parents) -> Tensor:
        """(N,) its logarithm; a single 0 without one."""
        name = self.spec.exposure
        if name is None:
            return self.intercept.new_zeros((), dtype=torch.float64)
        if name not in parents:
            raise MechanismError(f"The values of parent {name!r} are missing; got {sorted(parents)}.")
        if (found := self.unfittable(parents[name], parents)) is not None:
            wrong, reason = found
            raise DomainError(f"Row {int(wrong.nonzero()[0])}: {reason}")
        return parents[name].double().log()

    def distribution(self, parents: Parents, rows: int) -> dist.GammaPoisson | dist.Poisson:
        """p(x | pa) as a Pyro distribution of batch shape (N,)."""
        mean = self.log_mean(parents, rows).exp()
        return dist.GammaPoisson(self.shape, self.shape / mean) if self.dispersed else dist.Poisson(mean)

    def log_prob(self, value: Tensor, parents: Parents) -> Tensor:
        """(N,) log P(x | pa)."""
        return _log_prob(value, self.log_mean(parents, len(value)), self.shape if self.dispersed else None)

    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        """Uniforms, and how prone ``n`` rows are, on the generator's device."""
        drawn = uniforms((n,), generator) - 0.5
        noise = {"uniform": torch.where(drawn == 0, torch.finfo(torch.float64).eps / 4, drawn)}
        if self.dispersed:
            shape = self.shape.double().to(generator.device).expand(n)
            noise["rate"] = _gamma(shape, generator) / shape
        return Noise(n, noise)

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """(N,) counts."""
        mean = self.log_mean(parents, noise.n).exp()
        return _quantile(noise["uniform"], mean * noise["rate"] if self.dispersed else mean)

    def abduct(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Abducted:
        """A draw of p(u | x, pa).

        Raises:
            EvidenceError: a count so far from its mean that no float64 tells how improbable it is.
        """
        noise: dict[str, Tensor] = {}
        mean = rate = self.log_mean(parents, len(value)).exp()
        if self.dispersed:
            noise["rate"] = _gamma(self.shape + value, generator) / (self.shape + mean)
            rate = mean * noise["rate"]
        noise["uniform"], possible = _within_step(value, rate, uniforms((len(value),), generator))
        if not bool(possible.all()):
            row = int((~possible).nonzero()[0])
            remedy = "" if self.dispersed else ", or fit with law: negative_binomial"
            raise EvidenceError(
                f"Row {row}: a count of {int(value[row]):,} where {float(mean[row]):.3g} is expected is too "
                f"improbable for any noise to explain it. Check this row{remedy}."
            )
        return Abducted(Noise(len(value), noise))

    def unfittable(self, value: Tensor, parents: Parents) -> tuple[Tensor, str] | None:
        """Rows without exposure."""
        name = self.spec.exposure
        if name is None or not bool((wrong := ~(parents[name] > 0)).any()):
            return None
        return wrong, f"exposure {name!r} is {parents[name][wrong][0]:g}, expected a number above 0."

    def prepare(self, value: Tensor, parents: Parents) -> None:
        """Standardise the inputs."""
        self.conditioning.prepare(parents)

    def solve(self, value: Tensor, parents: Parents) -> bool:
        """Maximise the penalised likelihood."""
        columns = self.conditioning(parents, len(value)).detach().to(self.slope.dtype)
        known = self._log_exposure(parents).to(columns)
        start, (bias, slope, shape) = _maximised(value, columns, known, self.spec.smoothing, self.dispersed)
        self.intercept.copy_(start + bias)
        self.slope.copy_(slope)
        self.shape.copy_(shape)
        return True


def _log_prob(value: Tensor, log_mean: Tensor, shape: Tensor | None) -> Tensor:
    """(N,) log P(x), of a negative binomial of this shape r, or where it is None of a Poisson variable."""
    if shape is None:
        return value * log_mean - log_mean.exp() - torch.lgamma(value + 1)
    choices = torch.lgamma(value + shape) - torch.lgamma(shape) - torch.lgamma(value + 1)
    log_total = torch.logaddexp(shape.log(), log_mean)
    return choices + shape * (shape.log() - log_total) + value * (log_mean - log_total)


def _maximised(
    value: Tensor, columns: Tensor, known: Tensor, smoothing: float, dispersed: bool
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Logarithm of the mean rate; and what is added to it, slopes (columns,) and shape, at the optimum.

    ``known``, (N,) or (), is the logarithm of each row's exposure.
    """
    mean, variance = value.mean(), value.var(correction=0)
    start = (mean + 0.5 / len(value)).log() - known.exp().mean().log()
    usual = (mean.square() / (variance - mean).clamp(min=1e-9)).clamp(
        10 * _LEAST_SHAPE, 0.1 * _GREATEST_SHAPE
    )
    bias, slope, log_shape = torch.zeros_like(start), torch.zeros_like(columns[0]), usual.log()
    # What log m is told by a row: the loss is in parts of it, whatever the size of counts.
    unit = max(float(mean * usual / (mean + usual) if dispersed else mean), 1 / len(value))
    told = unit * len(value)

    def shape() -> Tensor:
        return log_shape.clamp(log(_LEAST_SHAPE), log(_GREATEST_SHAPE)).exp()

    def loss() -> Tensor:
        log_mean = (start + known + bias + columns @ slope).clamp(max=_MOST)
        penalty = 0.5 * smoothing * (slope.square().sum() + bias.square()) / len(value)
        return (penalty + _shortfall(value, log_mean, shape() if dispersed else None).mean()) / unit

    # A thousandth of a standard error, and of the log-likelihood 1e-6.
    tolerances = {"tolerance_grad": 1e-3 / told**0.5, "tolerance_change": 1e-6 / told}
    minimise(loss, [bias, slope, *([log_shape] if dispersed else [])], max_iter=_STEPS, **tolerances)
    return start, (bias.detach(), slope.detach(), shape().detach())


def _shortfall(value: Tensor, log_mean: Tensor, shape: Tensor | None) -> Tensor:
    """(N,) -log P(x) but for what no parameter changes, without the cancellation of large counts.

    Of the mean it is half of the deviance: what log P(x) lacks of that under a mean of x.
    """
    some = value > 0
    apart = torch.where(some, log_mean - value.clamp(min=1).log(), 0.0)
    more = torch.where(some, value * torch.expm1(apart), log_mean.exp())  # m - x
    if shape is None:
        return more - value * apart
    deviance = (shape + value) * torch.log1p(more / (shape + value)) - value * apart
    best = -shape * torch.log1p(value / shape) - value * torch.log1p(shape / value.clamp(min=1))
    return deviance - best - torch.lgamma(value + shape) + torch.lgamma(shape)


def _gamma(shapes: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma variables of these shapes, of scale 1."""
    return torch._standard_gamma(shapes, generator=generator)  # pyright: ignore[reportPrivateImportUsage]


def _reached(count: Tensor, uniform: Tensor, mean: Tensor) -> Tensor:
    """Whether a Poisson variable's F(count) > v, v as ``uniform`` tells it."""
    below = torch.special.gammaincc(count + 1, mean) > uniform
    return torch.where(uniform > 0, below, torch.special.gammainc(count + 1, mean) < -uniform)


def _quantile(uniform: Tensor, mean: Tensor) -> Tensor:
    """(N,) the least counts at which ``_reached``, by bisection."""
    low, high = torch.full_like(mean, -1), (mean + 10).floor()
    while bool((short := ~_reached(high, uniform, mean) & (high < 2.0**53)).any()):
        high = torch.where(short, 2 * high, high)
    while bool((high - low > 1).any()):
        middle = ((low + high) / 2).floor().clamp(min=0)
        reached = _reached(middle, uniform, mean)
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    return high


def _within_step(value: Tensor, mean: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) the place at this share, in [0, 1), of each value's step, as noise has it; whether it has one."""
    inside = value > 0
    before = value.clamp(min=1)
    low = torch.where(inside, torch.special.gammaincc(before, mean), 0.0)
    high = torch.special.gammaincc(value + 1, mean)
    most = torch.where(inside, torch.special.gammainc(before, mean), 1.0)  # P(X >= x)
    least = torch.special.gammainc(value + 1, mean)  # P(X > x)
    lower, upper = low + share * (high - low), least + (1 - share) * (most - least)
    # Rounding may leave the half-open step.
    tiny = torch.finfo(torch.float64).tiny
    lower = torch.minimum(lower.clamp(min=tiny), torch.nextafter(high, torch.zeros_like(high)))
    upper = torch.minimum(torch.maximum(upper, torch.nextafter(least, torch.ones_like(least))), most)
    return torch.where(lower < 0.5, lower, -upper), (high > low) | (most > least)
