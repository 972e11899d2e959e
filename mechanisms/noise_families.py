"""Named noise of an equation: ``{normal: [0, 1]}``, a family of Pyro's with the numbers that fix it.

Parameters are Pyro's, in its order, so gamma takes a rate and log_normal the mean and deviation of the
logarithm. Draws come from the given generator alone; what torch cannot draw by one is made of uniforms or
exponentials by the family's inverse distribution function. All values are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, tan
from typing import Any, Literal

import pyro.distributions as dist
import torch
from torch import Tensor

from graphs.errors import SpecError, UnknownNameError
from graphs.expressions import Range

__all__ = ["FAMILIES", "Family", "NoiseLaw", "noise_law"]

Rule = Literal["any", "positive", "probability", "count", "above"]
"""What a parameter may be; "above" is larger than the one before it."""

_MOST_VALUES = 4096


@dataclass(frozen=True)
class Family:
    """A family of distributions of one number.

    Attributes:
        parameters: rule by name, in order; empty for categorical, which takes any number of weights.
        distribution: parameters, as 0-dimensional float64 tensors, to Pyro's distribution.
        draw: standard or final draws: (parameters, n, generator) -> (n,).
        support: parameters to the range of its values.
        discrete: whether values are whole numbers.
    """

    parameters: Mapping[str, Rule]
    distribution: Callable[..., Any]
    draw: Callable[..., Tensor]
    support: Callable[..., Range] = lambda *_: Range()
    discrete: bool = False
