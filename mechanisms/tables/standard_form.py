"""``v = g(e)``: a draw of a Pyro distribution as a function of noise whose law has no parameters.

    Normal, Laplace, Cauchy, Gumbel, Logistic    v = loc + scale * e
    Uniform, Exponential, HalfNormal, HalfCauchy  v = low + width * e
    MultivariateNormal                            v = loc + L e
    Gamma, StudentT                               likewise, but e keeps the shape parameter
    a transformed distribution                    v = T(g(e)), T invertible

Any other distribution is its own noise, v = e. This is how a site whose law depends on a node's parents can
still have noise that does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributions as dist
from pyro.distributions import Logistic
from torch import Tensor

__all__ = ["StandardForm", "standard_form"]


@dataclass(frozen=True)
class StandardForm:
    """A distribution's draw as a function of noise.

    Attributes:
        base: law of the noise e; its shape is that of the draw.
        forward: e -> v.
        inverse: v -> e.
        free: whether the base has no parameters.
    """

    base: Any
    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    free: bool

    def draw(self) -> Tensor:
        """Noise from the global random state, float64 unless it is of whole numbers."""
        drawn = self.base.sample()
        return drawn.double() if drawn.is_floating_point() else drawn


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
