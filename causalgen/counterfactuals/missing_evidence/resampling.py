"""Weighted draws as draws of equal weight: systematic resampling, and the effective sample size.

    systematic resampling    P weighted draws become S equal ones with one uniform (Kitagawa 1996)
    effective sample size    (sum w)^2 / sum w^2, the equal draws that would say as much (Kong 1992)

Copies of one weighted draw are no independent draws. Their number, 0 to P - 1, is their *lineage*; standard
errors take draws of one lineage as one cluster.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

__all__ = ["pooled_effective_sample_size", "systematic", "warn_of_few"]


def systematic(weights: Tensor, uniform: Tensor, samples: int) -> Tensor:
    """Numbers of the weighted draws that S equal ones are, (S, n).

    Args:
        weights: (P, n), at least 0, not all 0 in a column.
        uniform: (n,) in [0, 1).
        samples: S.
    """
    steps = torch.arange(samples, dtype=torch.float64, device=uniform.device)
    edges = weights.T.double().cumsum(1).contiguous()
    points = (uniform[:, None] + steps) / samples * edges[:, -1:]
    return torch.searchsorted(edges, points.contiguous(), right=True).clamp(max=len(weights) - 1).T


def pooled_effective_sample_size(log_weights: Tensor, effective: Tensor | None) -> Tensor:
    """(n,) of S draws, each chosen out of a population of weighted draws of its own.

    Args:
        log_weights: (S, n) log mean weight of each population.
        effective: (S, n) effective sample size of each population; 1 where None.
    """
    total = (log_weights.double() - log_weights.double().amax(0)).exp()
    within = torch.ones_like(total) if effective is None else effective.double()
    return total.sum(0).square() / (total.square() / within).sum(0)


def warn_of_few(effective: Tensor, least: float, what: str, remedy: str) -> None:
    """Warn where weights leave few draws.

    Args:
        effective: (n,) effective sample size of each row.
        least: below which to warn.
        what: whose draws, as in "Inferring 'z'".
        remedy: what to do about it.
    """
    few = effective < least
    if bool(few.any()):
        warnings.warn(
            f"{what}: in {int(few.sum())} of {len(few)} rows the effective sample size is small, down to "
            f"{effective.min().item():.3g}. Answers for these rows are rough; {remedy}",
            UserWarning,
            stacklevel=2,
        )
