"""``x := f(pa, u)``: a known equation, with noise of known laws. Nothing is fitted.

    no noise           the value is checked: |x - f(pa)| <= tolerance * max(1, |x|)
    one noise          f solved for it where it is affine, invertible or strictly monotone, checked likewise;
                       log p(x | pa) = log p(u) - log |df/du|, without the last term where u is discrete
    finite noises      of few values: every combination that gives x, drawn by its probability;
                       P(x | pa) is their sum
    any other          the noise cannot be recovered: ``abduction`` is "none"

An integer's value must be whole, up to rounding. Where the value does not depend on the noise (the slope is 0
in that row), the noise keeps its prior.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal, final

import pyro.distributions as dist
import torch
from pydantic import AfterValidator, BeforeValidator, Field, field_validator
from torch import Tensor
from torch.distributions import AffineTransform

from graphs.errors import (
    CannotAbductError,
    CausalgenError,
    DomainError,
    EvidenceError,
    MechanismError,
    SpecError,
)
from graphs.expressions import Range, parse_expression
from graphs.integer import LARGEST
from graphs.variable_base import Bound
from graphs.variables import Categorical, Continuous, Integer, Variable
from mechanisms.affine_equation import affine_equation
from mechanisms.base import Abducted, Mechanism, MechanismSpec, Noise, Parents
from mechanisms.enumeration import Combinations, find_combinations
from mechanisms.equation_messages import fractions, not_whole, why_no_abduction, why_unexplained
from mechanisms.inversion import Inversion, find_inversion
from mechanisms.linear_form import LinearForm
from mechanisms.noise_families import NoiseLaw, noise_law
from mechanisms.tensor_functions import TORCH

__all__ = ["Equation", "EquationMechanism"]


def _as_list(written: object) -> object:
    """``{bernoulli: 0.3}`` for ``{bernoulli: [0.3]}``."""
    if not isinstance(written, Mapping):
        return written
    return {name: value if isinstance(value, Sequence) else [value] for name, value in written.items()}


def _checked(written: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    try:
        noise_law(written)
    except CausalgenError as error:
        raise ValueError(str(error).removesuffix(".")) from error
    return written


NoiseOption = Annotated[dict[str, tuple[Bound, ...]], BeforeValidator(_as_list), AfterValidator(_checked)]
"""One family and its parameters, as in ``{normal: [0, 1]}``."""


class Equation(MechanismSpec, frozen=True):
    """A node of one number or category by a known equation.

    Attributes:
        value: an expression of the parents and the noises, as in "2*a - 0.5*b + u" (``graphs.expressions``).
            Categories enter as their codes, and a categorical node's value must be one, an integer node's
            whole.
        noise: each noise's family and parameters, as in {u: {normal: [0, 1]}}; see
            ``mechanisms.noise_families``.
        tolerance: how far evidence may be from what the equation gives, in parts of max(1, |x|);
            whole numbers must agree.
    """

    kind: Literal["equation"] = "equation"
    training: None = None
    value: str
    noise: dict[str, NoiseOption] = Field(default_factory=dict)
    tolerance: float = Field(default=1e-6, ge=0, allow_inf_nan=False)

    @field_validator("value")
    @classmethod
    def _check_value(cls, value: str) -> str:
        try:
            parse_expression(value)
        except SpecError as error:
            raise ValueError(str(error).removesuffix(".")) from error
        return value

    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> EquationMechanism:
        """The mechanism for one variable of numbers or categories and its parents.

        Raises:
            MechanismError: the variable or a parent is neither, the equation reads a name that is neither
                parent nor noise, a noise is not in it or has a parent's name, or an integer is not whole.
        """
        for name, each in {"": variable, **parents}.items():
            if each.type == "image" or each.event_shape != ():
                who = f"parent {name!r}" if name else "its variable"
                raise MechanismError(
                    f"Mechanism 'equation' needs numbers or categories; {who} is {each.describe()}."
                )
        if both := sorted(parents.keys() & self.noise.keys()):
            raise MechanismError(f"Noise {both[0]!r} has the name of a parent. Rename the noise.")
        try:
            expression = parse_expression(self.value, {*parents, *self.noise})
        except SpecError as error:
            dashed = [name for name in parents if "-" in name]
            hint = f" No expression can read {dashed[0]!r}: in it, - is minus." if dashed else ""
            raise MechanismError(f"{error}{hint}") from error
        if unused := sorted(self.noise.keys() - set(expression.names)):
            raise MechanismError(f"Noise {unused[0]!r} is not in the equation {self.value!r}. Remove it.")
        return EquationMechanism(self, variable, parents)


@final
class EquationMechanism(Mechanism):
    """``x = f(pa, u)``. Noise: one leaf (N,) float64 for each named noise.

    Attributes:
        laws: of the noises, by name.
    """

    spec: Equation

    def __init__(self, spec: Equation, variable: Variable, parents: Mapping[str, Variable]) -> None:
        super().__init__(spec, variable, parents)
        self.laws: dict[str, NoiseLaw] = {name: noise_law(law) for name, law in spec.noise.items()}
        self.expression = parse_expression(spec.value)
        self.function = self.expression.compile(TORCH)
        ranges = {name: _range(parent) for name, parent in parents.items()}
        ranges |= {name: law.range for name, law in self.laws.items()}
        self.combinations = find_combinations(self.laws)
        self.inversion: Inversion | None = None
        if not self.laws:
            exact = True
        elif self.combinations is not None:
            # One value, one combination: told where it is monotone in the only noise.
            (name, *others) = self.laws
            exact = not others and self.expression.direction(name, ranges) != "unknown"
            self.chunk_rows = max(1, 2**20 // len(self.combinations))
        else:
            (name, *others) = self.laws
            if not others:
                self.inversion = find_inversion(self.expression, name, self.laws[name].bounds(), ranges)
            exact = self.inversion is not None and self.inversion.determined
        recovers = exact or self.inversion is not None or self.combinations is not None
        self.abduction = "exact" if exact else "posterior" if recovers else "none"
        self.deterministic = exact
        if self.inversion is not None and isinstance(variable, Integer):
            if fractions(self.laws):
                raise MechanismError(not_whole(spec.value, self.laws, variable))

    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        """Draws of every noise, on the generator's device."""
        return Noise(n, {name: law.sample(n, generator) for name, law in self.laws.items()})

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """(N,) float64, or int64 codes.

        Raises:
            DomainError: the equation gives no finite number, no whole one where it must be whole, or not a
                category; the message names the row.
        """
        # A constant is nowhere in particular until now.
        value = self.function({**parents, **noise}).to(self.fitted_flag.device).expand(noise.n)
        self._refuse(value, value.isfinite(), "a finite number. Keep it in its domain, as by maximum(x, 0)")
        if isinstance(self.variable, Continuous):
            return value
        whole = value.round()
        known, wanted = (
            (value - whole).abs() <= _slack(value),
            "a whole number. Write round(...) or floor(...)",
        )
        if isinstance(self.variable, Categorical):
            known = known & (whole >= 0) & (whole < self.variable.size)
            wanted = f"a code, 0..{self.variable.size - 1}. Write round(...), clip(...) or a condition"
        self._refuse(value, known & (whole.abs() <= LARGEST), wanted)
        return whole.long() if isinstance(self.variable, Categorical) else whole

    def abduct(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Abducted:
        """The noise of each row.

        Raises:
            CannotAbductError: the equation does not tell its noise; the message says why, and the remedies.
            EvidenceError: no noise gives a row's value; the message names the row and the value.
        """
        x = value.double()
        if self.abduction == "none":
            raise CannotAbductError(why_no_abduction(self.spec.value, self.laws, self.variable))
        if self.combinations is not None:
            scores = self._log_probabilities(self.combinations, x, parents)
            fits = scores.amax(1) > -torch.inf
            if not self.deterministic:  # the largest of log probability plus Gumbel is a draw
                exponential = torch.empty_like(scores).exponential_(generator=generator)
                scores = scores - exponential.clamp(min=torch.finfo(torch.float64).tiny).log()
            leaves = self.combinations.chosen(scores.argmax(1))
        elif self.inversion is not None:
            prior = None if self.deterministic else self.sample_noise(len(x), generator=generator)
            leaves, fits, _ = self._solve(self.inversion, x, parents, prior)
        else:
            leaves, fits = {}, self._fits(x, parents, {})
        if not bool(fits.all()):
            raise EvidenceError(self._contradiction(x, parents, int((~fits).nonzero()[0])))
        return Abducted(Noise(len(x), leaves))

    def log_prob(self, value: Tensor, parents: Parents) -> Tensor | None:
        """(N,) log density of x, or log probability in rows where only some values are possible.

        -inf where no noise gives x. None where the noise cannot be recovered, and for a number without noise.
        """
        x = value.double()
        if self.combinations is not None:
            return self._log_probabilities(self.combinations, x, parents).logsumexp(1)
        if self.inversion is not None:
            return self._change_of_variables(self.inversion, x, parents)
        if self.laws or isinstance(self.variable, Continuous):
            return None
        return torch.where(self._fits(x, parents, {}), 0.0, -torch.inf).double()

    def distribution(self, parents: Parents, rows: int) -> dist.TorchDistribution | None:
        """p(x | pa) as a Pyro distribution, batch shape (N,): for one noise on all numbers, affine in it."""
        if len(self.laws) != 1 or not self.deterministic:
            return None
        ((name, law),) = self.laws.items()
        form = self.expression.affine(name)
        if form is None or law.discrete or law.range != Range():  # what is out of range has a density there
            return None
        device = self.fitted_flag.device
        slope, intercept = (part.evaluate(parents, TORCH).to(device).expand(rows) for part in form)
        base = law.distribution(device).expand([rows])
        return dist.TransformedDistribution(base, AffineTransform(intercept, slope), validate_args=False)

    def linear_form(self, unknown: Collection[str], known: Parents, rows: int) -> LinearForm | None:
        """For a real number: affine in the unknown parents and in one normal noise, or without noise."""
        categories = any(isinstance(self.parents[name], Categorical) for name in unknown)
        if categories or not isinstance(self.variable, Continuous):
            return None
        return affine_equation(self.expression, self.laws, unknown, known, rows, self.fitted_flag.device)

    def _fits(self, x: Tensor, parents: Parents, noise: Mapping[str, Tensor]) -> Tensor:
        """Whether the noise gives x, within the tolerance; both (N,), or (N, 1) and noise (K,)."""
        whole = isinstance(self.variable, Integer)
        within = _slack(x) if whole else self.spec.tolerance * x.abs().clamp(min=1.0)
        near = (self.function({**parents, **noise}) - x).abs() <= within
        for leaf in noise.values():
            near = near & leaf.isfinite()
        return near

    def _log_probabilities(self, combinations: Combinations, x: Tensor, parents: Parents) -> Tensor:
        """(N, K) log probability of each combination of noises, -inf where it does not give x."""
        columns = {name: parents[name][:, None] for name in self.parents}
        return combinations.log_probabilities(
            lambda noise: self._fits(x[:, None], columns, noise).expand(len(x), len(combinations)), x.device
        )

    def _solve(
        self, inversion: Inversion, x: Tensor, parents: Parents, prior: Noise | None = None
    ) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
        """The noise, whether it gives x, and in which rows any noise does (None: in none).

        Those rows get the ``prior`` noise, or else the number nearest to 0.
        """
        ((name, law),) = self.laws.items()
        u, free = law.nearest(inversion.solve(x, parents)), None
        if inversion.slope is not None and not inversion.determined:
            free = (inversion.slope(parents) == 0).expand(len(x))
            u = torch.where(free, law.nearest(torch.zeros_like(u)) if prior is None else prior[name], u)
        return {name: u}, self._fits(x, parents, {name: u}), free

    def _change_of_variables(self, inversion: Inversion, x: Tensor, parents: Parents) -> Tensor:
        """(N,) log p(u) - log |df/du|; 0 where the noise does not matter."""
        ((name, law),) = self.laws.items()
        leaves, fits, free = self._solve(inversion, x, parents)
        # Where it does not fit, any number with a density will do.
        u = torch.where(fits, leaves[name], law.nearest(torch.zeros_like(x)))
        log_prob = law.log_prob(u)
        if not law.discrete:
            log_prob = log_prob - inversion.derivative(parents, u).abs().log()
        if free is not None:
            log_prob = torch.where(free, 0.0, log_prob)
        return torch.where(fits, log_prob, -torch.inf)

    def _refuse(self, value: Tensor, good: Tensor, wanted: str) -> None:
        """Refuse a row whose value is not good."""
        if not bool(good.all()):
            row = int((~good).nonzero()[0])
            raise DomainError(
                f"Row {row}: the equation {self.spec.value!r} gives {value[row].item()!r}, expected {wanted}."
            )

    def _contradiction(self, x: Tensor, parents: Parents, row: int) -> str:
        """What is wrong with a row of evidence."""
        given = ", ".join(f"{name} = {parents[name][row].item()!r}" for name in self.parents)
        only = {name: parents[name][[row]] for name in self.parents}
        expected = None if self.laws else self.function(only).reshape(())
        return why_unexplained(
            self.spec.value, self.laws, row, x[row].item(), given, expected, self.spec.tolerance
        )


def _slack(value: Tensor) -> Tensor:
    """How far rounding may take a computed whole number, or code, from itself."""
    return (1e-6 + 1e-15 * value.abs()).clamp(max=0.25)


def _range(variable: Variable) -> Range:
    """Where a parent's values lie."""
    if isinstance(variable, Categorical):
        return Range(0, variable.size - 1)
    assert isinstance(variable, Continuous | Integer), "checked by make"
    low, high = variable.lower, variable.upper
    return Range(-torch.inf if low is None else low, torch.inf if high is None else high)
