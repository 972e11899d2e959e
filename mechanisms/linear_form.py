"""A mechanism that is affine in some of its parents, with normal noise: what exact Gaussian inference needs.

    x = offset(known parents) + sum over unknown parents of weight_k pa_k + u,    u ~ N(0, covariance)

Values of any event shape are flattened. Weights and covariance have a leading dimension of 1 where they are
the same in every row, or of N where they depend on the known parents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

__all__ = ["LinearForm"]


@dataclass(frozen=True)
class LinearForm:
    """x given its parents, as above; float64.

    Attributes:
        weights: of the unknown parents by name, (1 or N, width, width of the parent).
        offset: (N, width).
        covariance: (1 or N, width, width); zero for a deterministic node.
    """

    weights: Mapping[str, Tensor]
    offset: Tensor
    covariance: Tensor
