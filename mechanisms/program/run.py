"""A run of a probabilistic program (Pyro) for N rows, with every sample site a function of noise.

A site's draw is ``v = g(e)``, e noise whose law has no parameters (``standard_form``): noise is independent
of the parents also where the site's law depends on them.

    Normal, Laplace, Cauchy, Gumbel, Logistic     v = loc + scale * e
    Uniform, Exponential, HalfNormal, HalfCauchy  v = low + width * e
    MultivariateNormal                            v = loc + L e
    Gamma, StudentT                               likewise, but e keeps the shape parameter
    a transformed distribution                    v = T(g(e)), T invertible
    any other                                     v = e

Every site is drawn for each row: its batch shape is (N,), or () and expanded. What a row has more of is the
site's event (``.to_event``). The program is shut off from handlers around it and Pyro's parameter store. It
sees categories as codes, numbers in data units, and images in [0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pyro
import torch
import torch.distributions as dist
from pyro.distributions import Logistic, MaskedDistribution
from pyro.poutine import block
from pyro.poutine.messenger import Messenger
from torch import Tensor

from graphs.errors import DomainError, MechanismError, ShapeError
from graphs.variables import Categorical, Continuous, Image, Integer, Variable
from graphs.variables.numeric import LARGEST
from mechanisms.seeds import ALONE

__all__ = [
    "ProgramRun",
    "Site",
    "StandardForm",
    "bad_parameter",
    "canonical_value",
    "placeholders",
    "run_program",
    "shown_parents",
    "standard_form",
    "unvalidated",
    "validated",
]


@dataclass(frozen=True)
class StandardForm:
    """A distribution's draw as a function of noise."""

    base: Any  # law of the noise e; its shape is that of the draw
    forward: Callable[[Tensor], Tensor]  # e -> v
    inverse: Callable[[Tensor], Tensor]  # v -> e
    free: bool  # whether the base has no parameters

    def draw(self) -> Tensor:
        """Noise from the global random state, float64 unless it is of whole numbers."""
        drawn = self.base.sample()
        return drawn.double() if drawn.is_floating_point() else drawn


_PARAMETER = re.compile(
    r"Expected parameter (\w+) .*?distribution (\w+)\(.*satisfy the constraint (\w+)", re.DOTALL
)
"""What torch tells of a parameter that a distribution cannot have."""

_LENIENT: ContextVar[bool] = ContextVar("_LENIENT", default=False)
"""Whether this thread is within ``unvalidated``."""

_LOCATION_SCALE = (dist.Normal, dist.Laplace, dist.Cauchy, dist.Gumbel, Logistic)


def standard_form(fn: Any) -> StandardForm:
    """The form of one distribution, torch's or Pyro's."""
    if isinstance(fn, dist.Independent):
        return standard_form(fn.base_dist)
    for family in _LOCATION_SCALE:
        if isinstance(fn, family):
            zero, one = _constants(fn.loc)
            return _affine(family(zero, one, validate_args=False), fn.loc, fn.scale)
    if isinstance(fn, dist.Uniform):
        zero, one = _constants(fn.low)
        return _affine(dist.Uniform(zero, one, validate_args=False), fn.low, fn.high - fn.low)
    if isinstance(fn, dist.Exponential):
        return _affine(dist.Exponential(_constants(fn.rate)[1]), 0, 1 / fn.rate)
    for family in (dist.HalfNormal, dist.HalfCauchy):
        if isinstance(fn, family):
            return _affine(family(_constants(fn.scale)[1]), 0, fn.scale)
    if isinstance(fn, dist.Gamma):
        base = dist.Gamma(fn.concentration.double(), _constants(fn.rate)[1], validate_args=False)
        return _affine(base, 0, 1 / fn.rate, free=False)
    if isinstance(fn, dist.StudentT):
        base = dist.StudentT(fn.df.double(), *_constants(fn.loc), validate_args=False)
        return _affine(base, fn.loc, fn.scale, free=False)
    if isinstance(fn, dist.MultivariateNormal):
        return _linear(fn.loc, fn.scale_tril)
    if isinstance(fn, dist.TransformedDistribution) and all(each.bijective for each in fn.transforms):
        return _transformed(standard_form(fn.base_dist), fn.transforms)
    return StandardForm(fn, lambda noise: noise, lambda value: value, free=False)


def _constants(like: Tensor) -> tuple[Tensor, Tensor]:
    zero = torch.zeros_like(like, dtype=torch.float64, requires_grad=False)
    return zero, torch.ones_like(zero)


def _affine(base: Any, shift: Tensor | float, scale: Tensor, *, free: bool = True) -> StandardForm:
    return StandardForm(
        base, lambda noise: shift + scale * noise, lambda value: (value - shift) / scale, free
    )


def _linear(loc: Tensor, lower: Tensor) -> StandardForm:
    base = dist.Normal(*_constants(loc), validate_args=False)
    lower = lower.double()

    def forward(noise: Tensor) -> Tensor:
        return loc + (lower @ noise[..., None])[..., 0]

    def inverse(value: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(lower, (value - loc)[..., None], upper=False)[..., 0]

    return StandardForm(base, forward, inverse, free=True)


def _transformed(base: StandardForm, transforms: Sequence[Any]) -> StandardForm:
    def forward(noise: Tensor) -> Tensor:
        value = base.forward(noise)
        for transform in transforms:
            value = transform(value)
        return value

    def inverse(value: Tensor) -> Tensor:
        for transform in reversed(transforms):
            value = transform.inv(value)
        return base.inverse(value)

    return StandardForm(base.base, forward, inverse, base.free)


@dataclass(frozen=True)
class Site:
    """A sample site of a run."""

    fn: Any  # its distribution, batch shape (N,)
    form: StandardForm  # its draw as a function of noise
    noise: Tensor  # (N, *event)
    value: Tensor  # (N, *event)

    @property
    def discrete(self) -> bool:
        """Whether its values are whole numbers."""
        return bool(self.fn.support.is_discrete)


@dataclass(frozen=True)
class ProgramRun:
    """What a run returned, and its sites in order."""

    returned: Any
    sites: Mapping[str, Site]

    @property
    def last(self) -> tuple[str, Site]:
        """The last site."""
        return list(self.sites.items())[-1]


@contextmanager
def unvalidated() -> Iterator[None]:
    """Pyro without its checks of parameters and supports, which inference steps over and answers by log 0.

    Alone: both Pyro's switch and its handlers are the whole process's, not a thread's.
    """
    token = _LENIENT.set(True)
    try:
        with ALONE, pyro.validation_enabled(False):
            yield
    finally:
        _LENIENT.reset(token)


@contextmanager
def validated() -> Iterator[None]:
    """Pyro with its checks, also where the caller has switched them off, but not within ``unvalidated``."""
    with ALONE, pyro.validation_enabled(not _LENIENT.get()):
        yield


def run_program(
    program: Callable[..., Any],
    parents: Mapping[str, Tensor],
    rows: int,
    *,
    noise: Mapping[str, Tensor] | None = None,
    values: Mapping[str, Tensor] | None = None,
) -> ProgramRun:
    """Run a program at parents (N, *event).

    Of each site the noise, (N, *event), is drawn from the global random state where None; ``values`` are
    those of sites that do not follow their noise.
    """
    sites = _Sites(rows, noise, values or {})
    with ALONE, block(), sites:
        returned = program({name: each.clone() for name, each in parents.items()})  # it may change them
    missing = sorted((noise or {}).keys() - sites.found.keys())
    if missing:
        raise MechanismError(
            f"The program did not reach its site {missing[0]!r}: it must have the same sites in every run."
        )
    return ProgramRun(returned, sites.found)


class _Sites(Messenger):
    """Gives every sample site its value, and keeps the sites."""

    def __init__(self, rows: int, noise: Mapping[str, Tensor] | None, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.rows, self.noise, self.values = rows, noise, values
        self.found: dict[str, Site] = {}

    def _pyro_sample(self, msg: Any) -> None:
        name, fn = msg["name"], msg["fn"]
        if type(fn).__name__ == "_Subsample" or msg["infer"].get("_deterministic"):
            return
        self._refuse(msg)
        fn = fn.expand([self.rows])
        form = standard_form(fn)
        if self.noise is None:
            drawn = form.draw()
        elif name in self.noise:
            drawn = self.noise[name]
        else:
            raise MechanismError(
                f"The program has a new site {name!r}: it must have the same sites in every run."
            )
        value = self.values[name] if name in self.values else form.forward(drawn)
        self.found[name] = Site(fn, form, drawn, value)
        msg["value"], msg["done"] = value, True

    def _pyro_param(self, msg: Any) -> None:
        raise MechanismError(
            f"The program has a parameter {msg['name']!r} in Pyro's global store, which no model can save. "
            "Use numbers, tensors, or a torch module."
        )

    def _refuse(self, msg: Any) -> None:
        """Refuse a site that is no noise."""
        name, shape, inner = msg["name"], tuple(msg["fn"].batch_shape), msg["fn"]
        while isinstance(inner, dist.Independent):
            inner = inner.base_dist
        if msg["is_observed"]:
            raise MechanismError(
                f"Site {name!r} of the program is observed. A mechanism says how its value comes about; "
                "what was observed is evidence, for scm.counterfactual."
            )
        masked = msg["mask"] is not None or isinstance(inner, MaskedDistribution)
        if masked or msg["scale"] not in (None, 1, 1.0):
            raise MechanismError(
                f"Site {name!r} of the program is masked or scaled: its density would be another law's than "
                "its draws. Remove the handler, or .mask(...)."
            )
        if name in self.found:
            raise MechanismError(f"The program has two sites named {name!r}. Rename one.")
        if shape not in ((self.rows,), (1,), ()):
            raise MechanismError(
                f"Site {name!r} of the program has batch shape {shape}, expected ({self.rows},), the rows. "
                "Further dimensions belong to one row: declare them with .to_event(...), and use no plates."
            )


def shown_parents(variables: Mapping[str, Variable], parents: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Canonical values of the parents in the program's form."""
    return {
        name: (parents[name] + 1) / 2 if isinstance(variable, Image) else parents[name]
        for name, variable in variables.items()
    }


def bad_parameter(told: str, parents: Mapping[str, Tensor]) -> str:
    """What torch told of a distribution's parameters, in words, at one row of parents, (*event)."""
    what = told
    if (found := _PARAMETER.search(told)) is not None:
        parameter, family, constraint = found.groups()
        what = f"the {parameter} of the program's {family} leaves torch's constraint {constraint}"
    at = ", ".join(f"{name} = {each.item():g}" for name, each in parents.items() if not each.ndim)
    return (
        f"{f'At {at}, ' if at else ''}{what}. Bring it in, as by .clamp(min=0.01) or .exp(), or give the "
        "parents bounds that leave such values out."
    )


def placeholders(variables: Mapping[str, Variable], rows: int, device: torch.device) -> dict[str, Tensor]:
    """Some values of the parents, in the program's form: what the noise is drawn with."""
    found: dict[str, Tensor] = {}
    for name, variable in variables.items():
        shape, dtype = (rows, *variable.event_shape), getattr(torch, variable.dtype)
        found[name] = torch.full(shape, _placeholder(variable), dtype=dtype, device=device)
    return found


def _placeholder(variable: Variable) -> float:
    if isinstance(variable, Categorical):
        return variable.size - 1
    if isinstance(variable, Image):
        return 0.5
    low, high = variable.lower, variable.upper
    if low is not None and high is not None:
        return (low + high) // 2 if isinstance(variable, Integer) else (low + high) / 2
    # 1 rather than 0: it has a logarithm and a reciprocal.
    return low + 1 if low is not None else high - 1 if high is not None else 1.0


def canonical_value(variable: Variable, returned: Any, rows: int, *, check: bool = False) -> Tensor:
    """What a program returned, (N, *event), canonical; unless checked, codes are left as numbers."""
    shape = (rows, *variable.event_shape)
    if not isinstance(returned, Tensor) or tuple(returned.shape) not in (shape, shape[1:]):
        got = tuple(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
        raise ShapeError(f"The program must return a tensor of shape {shape}, one value a row; got {got}.")
    value = returned.expand(shape)
    if check:
        _check(variable, value)
    if isinstance(variable, Image):
        return (value * 2 - 1).float()
    if isinstance(variable, Categorical) and check:
        return value.round().long()
    if isinstance(variable, Integer) and check:
        return value.double().round()
    return value.double()


def _check(variable: Variable, value: Tensor) -> None:
    good, wanted = value.isfinite(), "a finite number"
    if isinstance(variable, Categorical):
        codes = value.round()
        good = good & (codes >= 0) & (codes < variable.size) & ((value - codes).abs() <= 1e-6)
        wanted = f"a code, 0..{variable.size - 1}"
    else:
        numbers = isinstance(variable, Continuous | Integer)
        bounds = (variable.lower, variable.upper) if numbers else (-1e-6, 1 + 1e-6)
        for bound, sign in zip(bounds, (1, -1), strict=True):
            if bound is not None:
                good = good & (sign * value >= sign * bound)
                wanted = f"within {bounds[0]} and {bounds[1]}"
        if isinstance(variable, Integer):
            good = good & ((value - value.round()).abs() <= 1e-6) & (value.abs() <= LARGEST)
            wanted = f"a whole number ({variable.describe()})"
    row_good = good.reshape(len(value), -1).all(1)
    if not bool(row_good.all()):
        row = int((~row_good).nonzero()[0])
        bad = value[row].reshape(-1)[~good[row].reshape(-1)][0].item()
        raise DomainError(f"Row {row}: the program gives {bad!r}, expected {wanted}.")
