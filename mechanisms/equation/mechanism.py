"""Structural equation ``x := f(pa, u)``, a known formula with noise of known laws. Nothing is fitted.

    no noise           the value is checked: |x - f(pa)| <= tolerance * scale
    one noise          f solved for it where it is affine, invertible or strictly monotone, checked likewise;
                       log p(x | pa) = log p(u) - log |df/du|, without the last term where u is discrete
    finite noises      of few values: every combination that gives x, drawn by its probability;
                       P(x | pa) is their sum. Of several within the tolerance, the nearest counts
    any other          the noise cannot be recovered: ``abduction`` is "none"

The scale is that of the row's own terms (``mechanisms.equation.inversion``), as |a| + |b| of a - b, so that
answers do not depend on the unit of the data. An integer's value must be whole, up to rounding. Where the
value does not depend on the noise (its slope is 0 in that row), the noise keeps its prior, and the value has
a probability.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, final

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
from graphs.expressions import Expression, Range, parse_expression
from graphs.variables import Categorical, Continuous, Integer, Variable
from graphs.variables.base import Bound
from graphs.variables.numeric import LARGEST
from mechanisms.base import Abducted, LinearForm, Mechanism, MechanismSpec, Noise, Parents
from mechanisms.equation.inversion import (
    TORCH,
    Combinations,
    Inversion,
    find_combinations,
    find_inversion,
    find_ranges,
    fractions,
    not_whole,
    scale_of,
    why_no_abduction,
)
from mechanisms.seeds import gumbels
from mechanisms.tables.noise_families import NoiseLaw, NoiseSchema, noise_law

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
        value: an expression of the parents and the noises, as in "2*a - 0.5*b + u".
            Categories are read and written as codes, so a label that is a number must be its code; an
            integer node's value must be whole.
        noise: each noise's family and parameters, as in ``{u: {normal: [0, 1]}}``.
        tolerance: how far evidence may be from what the equation gives, in parts of the scale of its terms in
            that row: the default takes six significant digits; whole numbers must agree.
    """

    whole: ClassVar[tuple[str, ...]] = ("noise",)
    kind: Literal["equation"] = "equation"
    training: None = None
    value: str
    noise: Annotated[dict[str, NoiseOption], NoiseSchema()] = Field(default_factory=dict)
    tolerance: float = Field(default=1e-5, ge=0, allow_inf_nan=False)

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
            MechanismError: the variable or a parent is neither, or a parent's labels would be misread; the
                equation reads a name that is neither parent nor noise, a noise is not in it or has a parent's
                name, or an integer is not whole.
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
        named = {f"parent {name!r}": each for name, each in parents.items() if name in expression.names}
        for who, each in {"its variable": variable, **named}.items():
            if isinstance(each, Categorical) and each.misread:
                raise MechanismError(
                    f"Mechanism 'equation' would take labels of {who} for codes, {each.misread} Give labels "
                    "that are no numbers, or recode to 0, 1, ... ."
                )
        if unused := sorted(self.noise.keys() - set(expression.names)):
            raise MechanismError(f"Noise {unused[0]!r} is not in the equation {self.value!r}. Remove it.")
        return EquationMechanism(self, variable, parents)


@final
class EquationMechanism(Mechanism):
    """``x = f(pa, u)``. Noise: one leaf (N,) float64 for each named noise."""

    spec: Equation

    def __init__(self, spec: Equation, variable: Variable, parents: Mapping[str, Variable]) -> None:
        super().__init__(spec, variable, parents)
        self.laws: dict[str, NoiseLaw] = {name: noise_law(law) for name, law in spec.noise.items()}
        self.expression = parse_expression(spec.value)
        self.combinations = find_combinations(self.laws)
        ranges = self._compile()
        if not self.laws:
            exact = True
        elif self.combinations is not None:
            # One value, one combination: told where it is monotone in the only noise.
            (name, *others) = self.laws
            exact = not others and self.expression.direction(name, ranges) != "unknown"
            self.chunk_rows = max(1, 2**20 // len(self.combinations))
        else:
            exact = self.inversion is not None and self.inversion.free is None
        recovers = exact or self.inversion is not None or self.combinations is not None
        self.abduction = "exact" if exact else "posterior" if recovers else "none"
        self.deterministic = exact
        self.restricts = recovers and not self._takes_every_value()
        if self.inversion is not None and isinstance(variable, Integer) and fractions(self.laws):
            raise MechanismError(not_whole(spec.value, self.laws, variable))

    def _compile(self) -> dict[str, Range]:
        """Make the functions, which do not pickle, from the expression; the ranges of its names."""
        self.function = self.expression.compile(TORCH)
        ranges = find_ranges(self.parents, self.laws)
        self.inversion: Inversion | None = None
        if self.combinations is None and len(self.laws) == 1:
            ((name, law),) = self.laws.items()
            self.inversion = find_inversion(self.expression, name, law, ranges)
        return ranges

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "function": None, "inversion": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._compile()

    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        """Draws of every noise, on the generator's device."""
        return Noise(n, {name: law.sample(n, generator) for name, law in self.laws.items()})

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """(N,) float64, or int64 codes."""
        self._refuse_foreign(noise)
        # A constant is nowhere in particular until now.
        value = self.function({**parents, **noise}).to(self.fitted_flag.device).expand(noise.n)
        self._refuse(value, value.isfinite(), "a finite number. Keep it in its domain, as by maximum(x, 0)")
        if isinstance(self.variable, Continuous):
            return value
        whole = value.round()
        known = (value - whole).abs() <= _slack(value)
        wanted = "a whole number. Write round(...) or floor(...)"
        if isinstance(self.variable, Categorical):
            known = known & (whole >= 0) & (whole < self.variable.size)
            wanted = f"a code, 0..{self.variable.size - 1}. Write round(...), clip(...) or a condition"
        self._refuse(value, known & (whole.abs() <= LARGEST), wanted)
        return whole.long() if isinstance(self.variable, Categorical) else whole

    def abduct(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Abducted:
        """The noise of each row."""
        if self.abduction == "none":
            raise CannotAbductError(why_no_abduction(self.spec.value, self.laws, self.variable))
        leaves, fits = self._explained(value.double(), parents, generator)
        self._refuse_unexplained(value.double(), parents, fits)
        return Abducted(Noise(len(value), leaves))

    def check(self, value: Tensor, parents: Parents) -> None:
        """As ``abduct`` refuses, where the noise can be recovered at all."""
        if not self.restricts:
            return
        x = value.double()
        fits: list[Tensor] = []
        for rows in torch.arange(len(x), device=x.device).split(self.chunk_rows or max(1, len(x))):
            some = {name: parents[name][rows] for name in self.parents}
            fits.append(self._explained(x[rows], some, None)[1].expand(len(rows)))
        if fits:
            self._refuse_unexplained(x, parents, torch.cat(fits))

    def atomic(self, value: Tensor, parents: Parents) -> Tensor | None:
        """Of a real number: rows where it depends on no noise, or on noise of whole numbers alone."""
        if not isinstance(self.variable, Continuous) or self.abduction == "none":
            return None
        if self.inversion is None or all(law.discrete for law in self.laws.values()):
            return torch.ones(len(value), dtype=torch.bool, device=value.device)
        free = self.inversion.free
        return None if free is None else free(parents).to(value.device).expand(len(value))

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
        """For a real number: affine in the unknown parents and in one normal noise, or without noise.

        The equation is peeled name by name: f = slope * name + rest, and the rest again, until none is left.
        Slopes may depend on known parents alone.
        """
        categories = any(isinstance(self.parents[name], Categorical) for name in unknown)
        normal = len(self.laws) <= 1 and all(law.name == "normal" for law in self.laws.values())
        if categories or not normal or not isinstance(self.variable, Continuous):
            return None

        def evaluated(part: Expression) -> Tensor:
            return part.evaluate(known, TORCH).to(self.fitted_flag.device).expand(rows)

        slopes: dict[str, Tensor] = {}
        rest = self.expression
        for name in (*self.laws, *unknown):
            form = rest.affine(name)
            if form is None or not {*unknown, *self.laws}.isdisjoint(form[0].names):
                return None
            slopes[name], rest = evaluated(form[0]), form[1]
        offset = evaluated(rest)
        variance = torch.zeros_like(offset)
        for name, law in self.laws.items():
            mean, deviation = law.parameters
            offset, variance = offset + slopes[name] * mean, (slopes[name] * deviation) ** 2
        matrices = {name: _once(slopes[name].view(-1, 1, 1)) for name in unknown}
        return LinearForm(matrices, offset[:, None], _once(variance.view(-1, 1, 1)))

    def _takes_every_value(self) -> bool:
        """Whether each number has some noise, whatever the parents."""
        if self.inversion is None or self.inversion.free is not None:
            return False
        ((name, law),) = self.laws.items()
        return not law.discrete and law.range == Range() and self.expression.affine(name) is not None

    def _fits(self, x: Tensor, parents: Parents, noise: Mapping[str, Tensor]) -> Tensor:
        """Whether the noise gives x, within the tolerance; all (N,)."""
        values = {**parents, **noise}
        found = self.function(values)
        distance = (found - x).abs()
        if not isinstance(self.variable, Continuous):
            return distance <= _slack(x)
        within = distance <= self.spec.tolerance * found.abs()
        if not bool(within.all()):  # the scale is at least the size, and takes longer to compute
            within = within | (distance <= self.spec.tolerance * self._scale(values))
        return within

    def _scale(self, values: Mapping[str, Tensor]) -> Tensor:
        """Of the equation's value, (N,)."""
        scales = {name: torch.tensor(law.scale) for name, law in self.laws.items()}
        return scale_of(self.expression, values, scales).to(self.fitted_flag.device)

    def _log_probabilities(self, combinations: Combinations, x: Tensor, parents: Parents) -> Tensor:
        """(N, K) log probability of each combination of noises, -inf where it does not give x.

        Of those within the tolerance only the nearest to x count, and those that rounding parts from them.
        """
        columns = {name: parents[name][:, None] for name in self.parents}

        def fits(noise: Mapping[str, Tensor]) -> Tensor:
            found = self.function({**columns, **noise})
            distance = (found - x[:, None]).abs_().expand(len(x), len(combinations))
            nearest, which = distance.min(1)
            if bool(nearest.isnan().any()):
                nearest, which = distance.nan_to_num(torch.inf).min(1)
            leaves = combinations.chosen(which)
            rounding = _ROUNDING * self._scale({**parents, **leaves})
            close = distance <= (nearest + rounding.nan_to_num(0.0))[:, None]
            return close & self._fits(x, parents, leaves)[:, None]

        return combinations.log_probabilities(fits, x.device)

    def _explained(
        self, x: Tensor, parents: Parents, generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Noise that gives x, a draw of it if there is a generator; and whether it does, (N,)."""
        if self.combinations is not None:
            scores = self._log_probabilities(self.combinations, x, parents)
            fits = scores.amax(1) > -torch.inf
            if not self.deterministic and generator is not None:
                scores = scores + gumbels(tuple(scores.shape), generator)
            return self.combinations.chosen(scores.argmax(1)), fits
        if self.inversion is not None:
            prior = None
            if not self.deterministic and generator is not None:
                prior = self.sample_noise(len(x), generator=generator)
            leaves, fits, _ = self._solve(self.inversion, x, parents, prior)
            return leaves, fits
        return {}, self._fits(x, parents, {})

    def _solve(
        self, inversion: Inversion, x: Tensor, parents: Parents, prior: Noise | None = None
    ) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
        """The noise, whether it gives x, and in which rows any noise does (None: in none).

        Those rows get the ``prior`` noise, or else one draw, the same each time: any number will do, but for
        the ends of the law's range, where an equation such as ``a*log(u)`` at a = 0 has no value.
        """
        ((name, law),) = self.laws.items()
        u, free = law.nearest(inversion.solve(x, parents)), None
        if inversion.free is not None:
            free = inversion.free(parents).to(u.device).expand(len(x))
            if bool(free.any()):
                one = torch.Generator(u.device).manual_seed(0)
                drawn = self.sample_noise(1, generator=one) if prior is None else prior
                u = torch.where(free, drawn[name], u)
        return {name: u}, self._fits(x, parents, {name: u}) & u.isfinite(), free

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

    def _refuse_foreign(self, noise: Noise) -> None:
        """Refuse noise that its law cannot have drawn: an earlier mechanism's, under another law."""
        for name, law in self.laws.items():
            if law.range == Range():
                continue
            possible = law.supports(noise[name])
            if not bool(possible.all()):
                row = int((~possible).nonzero()[0])
                raise DomainError(
                    f"Row {row}: noise {name!r} is {noise[name][row].item()!r}, which {law} cannot give, in "
                    f"the equation {self.spec.value!r}. Noise kept from another mechanism must be of this "
                    "law: replace with noise='fresh', or give the noise the other's law."
                )

    def _refuse(self, value: Tensor, good: Tensor, wanted: str) -> None:
        """Refuse a row whose value is not good."""
        if not bool(good.all()):
            row = int((~good).nonzero()[0])
            raise DomainError(
                f"Row {row}: the equation {self.spec.value!r} gives {value[row].item()!r}, expected {wanted}."
            )

    def _refuse_unexplained(self, x: Tensor, parents: Parents, fits: Tensor) -> None:
        """Refuse a row that no noise explains."""
        fits = fits.expand(len(x))
        if bool(fits.all()):
            return
        row = int((~fits).nonzero()[0])
        given = {name: parents[name][row].item() for name in self.parents}
        at = " at " + ", ".join(f"{name} = {value!r}" for name, value in given.items()) if given else ""
        where = f"Row {row}: the value is {x[row].item()!r}, but the equation {self.spec.value!r}"
        if not self.laws:
            expected = self.expression.evaluate(given).item()
            raise EvidenceError(
                f"{where} gives {expected!r}{at} (tolerance {self.spec.tolerance:g}). Correct the evidence, "
                "widen the tolerance, or give the equation a noise."
            )
        laws = ", ".join(f"{name} ~ {law}" for name, law in self.laws.items())
        raise EvidenceError(
            f"{where} does not give it{at} for any one value of its noise, {laws}: it has probability zero. "
            "Correct the evidence, widen the tolerance, or give the noise another family."
        )


_ROUNDING = 64 * torch.finfo(torch.float64).eps
"""How far equal values may be apart for having been computed in another way, in parts of their scale."""


def _once(matrix: Tensor) -> Tensor:
    """One matrix for all rows, (1, 1, 1), where it does not depend on the row."""
    return matrix[:1] if bool((matrix == matrix[:1]).all()) else matrix


def _slack(value: Tensor) -> Tensor:
    """How far rounding may take a computed whole number, or code, from itself."""
    return (1e-6 + 1e-15 * value.abs()).clamp(max=0.25)
