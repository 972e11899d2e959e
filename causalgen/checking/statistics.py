"""Kolmogorov-Smirnov distances between distribution functions: of draws, of tables, of densities."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "distance_to_density",
    "distance_to_log_prob",
    "distance_to_table",
    "distance_to_whole",
    "is_discrete",
    "sample_distance",
]


def sample_distance(one: Tensor, other: Tensor) -> float:
    """Largest difference of the empirical distribution functions of two samples, (N,) and (M,)."""
    one, other = one.double().sort().values, other.double().sort().values
    points = torch.cat([one, other])
    functions = [torch.searchsorted(sample, points, right=True) / len(sample) for sample in (one, other)]
    return (functions[0] - functions[1]).abs().max().item()


def distance_to_log_prob(draws: Tensor, log_prob: Callable[[Tensor], Tensor], *, whole: bool) -> float:
    """The distance that fits: to whole numbers' probabilities, a table where draws repeat, or a density."""
    if whole:
        return distance_to_whole(draws, log_prob)
    return (distance_to_table if is_discrete(draws) else distance_to_density)(draws, log_prob)


def distance_to_table(draws: Tensor, log_prob: Callable[[Tensor], Tensor]) -> float:
    """Largest difference of the distribution functions of discrete draws, (N,), and their probabilities."""
    values, counts = draws.unique(return_counts=True)
    probabilities = log_prob(values).double().exp()
    return (counts / len(draws) - probabilities).cumsum(0).abs().max().item()


def distance_to_whole(draws: Tensor, log_prob: Callable[[Tensor], Tensor], points: int = 100_000) -> float:
    """Largest difference of the distribution functions of whole draws, (N,), and their log probabilities.

    Of at most so many whole numbers, those nearest to the least draw.
    """
    low = draws.min()
    count = min(int(draws.max() - low) + 1, points)
    values = torch.arange(count, dtype=draws.dtype, device=draws.device) + low
    expected = log_prob(values).double().exp().cumsum(0)
    empirical = torch.searchsorted(draws.sort().values, values, right=True) / len(draws)
    return (empirical - expected).abs().max().item()


def is_discrete(draws: Tensor) -> bool:
    """Whether many draws repeat, as those from a density do not."""
    return len(draws.unique()) < draws.numel() // 2


def distance_to_density(draws: Tensor, log_prob: Callable[[Tensor], Tensor], between: int = 16) -> float:
    """Largest difference of the distribution functions of distinct draws, (N,), and of a log density.

    The density is integrated by the trapezoidal rule from the least draw to each other, over ``between``
    intervals from one draw to the next, so that the points are where the mass is.
    """
    draws = draws.double().sort().values
    part = torch.arange(between, dtype=torch.float64, device=draws.device) / between
    points = torch.cat([(draws[:-1, None] + draws.diff()[:, None] * part).flatten(), draws[-1:]])
    density = log_prob(points).double().exp()
    pieces = torch.trapezoid(torch.stack([density[:-1], density[1:]], -1), dx=1.0) * points.diff()
    integral = pieces.reshape(-1, between).sum(1).cumsum(0)
    empirical = torch.arange(1, len(draws), dtype=torch.float64, device=draws.device) / len(draws)
    return (integral - empirical).abs().max().item()
