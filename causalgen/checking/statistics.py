"""Distances of distribution functions (Kolmogorov-Smirnov), and tests of independence, many at once.

Of draws, tables and densities the largest distance of their distribution functions. Of two variables a
permutation test of their independence, exact at any number of rows:

    HSIC(x, y) = |Phi(x)' Psi(y)|^2                                                     (Gretton et al. 2005)
    strength   = HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y))
    p          = share of permutations of y's rows whose HSIC is at least the observed  (Besag, Clifford 1991)

Phi and Psi are the centred features of Gaussian kernels with the median distance as width, found by pivoted
incomplete Cholesky factors. Columns are ranked first, so that no outlier decides. Sampling stops once enough
permutations have reached the observed value: independent pairs cost little, and p stays valid. Where none has
reached it, p is at most Chernoff's bound under the normal law that Phi'Psi has in many rows: by permutations
alone, which are at least 1 of 10,001, no dependence could stand out among hundreds of tests.

For x independent of (y, z) jointly, y's features are its ranks, those of its kernel, and products of these
and z's, each less its regression on z's: what of y, and of how y and z go together, z itself does not tell
(Zhang et al. 2011 take such residuals, of x too, to test x and y given z). So a y that is z but for little is
found, and one that matters by its interaction with z alone.

Many tests are judged together by the false discovery rate (Benjamini, Hochberg 1995).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Ranked",
    "adjusted_p_values",
    "beside",
    "distance_to_density",
    "distance_to_log_prob",
    "distance_to_table",
    "distance_to_whole",
    "independence_test",
    "is_discrete",
    "kernel_features",
    "ranked_columns",
    "sample_distance",
    "tail_bound",
]

_RANK = 50
"""Most features of a kernel; the rest of its trace is dropped."""

_ENOUGH = 20
"""Permutations that reach the observed value after which p is known well enough."""

_BATCH = 100

_LEAST = 1e-9
"""Probability that a bound tells: what is less says no more, among a thousand tests."""

_FACTORS = 8
"""Most features of each of two variables whose products are taken: the first pivots, of the widest spread."""


def sample_distance(one: Tensor, other: Tensor) -> float:
    """Largest difference of the empirical distribution functions of two samples, (N,) and (M,)."""
    one, other = one.double().sort().values, other.double().sort().values
    points = torch.cat([one, other])
    functions = [torch.searchsorted(sample, points, right=True) / len(sample) for sample in (one, other)]
    return (functions[0] - functions[1]).abs().max().item()


def distance_to_log_prob(
    draws: Tensor, log_prob: Callable[[Tensor], Tensor], *, whole: bool, atoms: Tensor
) -> float:
    """The distance that fits: to whole numbers' probabilities, a table where draws repeat, or a density.

    Where some draws, (N,) bool, are atoms, beside others that have a density, of either the larger one.
    """
    if whole:
        return distance_to_whole(draws, log_prob)
    share = 1 - atoms.double().mean().item()
    if share in (0, 1):
        return (distance_to_table if is_discrete(draws) else distance_to_density)(draws, log_prob)
    values, counts = draws[atoms].unique(return_counts=True)
    known = (counts / len(draws) - log_prob(values).double().exp()).cumsum(0).abs().max().item()
    return max(known, share * distance_to_density(draws[~atoms], lambda x: log_prob(x) - log(share)))


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


def ranked_columns(values: Tensor) -> Tensor:
    """(N, ...) numbers -> (N, columns) float64 mid-ranks, mean 0 and deviation 1; constant columns are 0."""
    columns = [_ranks(column) for column in values.reshape(len(values), -1).double().unbind(1)]
    return torch.stack(columns, 1) if columns else values.new_zeros(len(values), 0, dtype=torch.float64)


def kernel_features(columns: Tensor) -> Tensor:
    """Centred features of a Gaussian kernel, whose width is the median distance of the rows.

    Of (N, columns) float64, (N, rank) float32, rank at most 50; no features where all rows are equal.
    """
    distances = torch.cdist(columns, columns)
    positive = distances[distances > 0]
    if not len(positive):
        return columns.new_zeros(len(columns), 0, dtype=torch.float32)
    kernel = (-0.5 * (distances / positive.median()).square()).exp()
    factor = _incomplete_cholesky(kernel)
    return (factor - factor.mean(0)).float()


class Ranked(NamedTuple):
    """A variable's columns by ``ranked_columns``, and their features by ``kernel_features``."""

    columns: Tensor
    features: Tensor


def beside(y: Ranked, z: Ranked) -> Tensor:
    """Features of y beside z, (N, at most columns + rank + 64): see the head of this module."""
    if not (y.features.shape[1] and z.features.shape[1]):
        return y.features
    products = (y.features[:, :_FACTORS, None] * z.features[:, None, :_FACTORS]).flatten(1)
    both = torch.cat([y.columns, y.features, products - products.mean(0)], 1).double()
    given = torch.cat([z.columns, z.features], 1).double()
    # A feature's squares sum to N at most. The ridge keeps few rows from being fitted to the last.
    gram = given.T @ given + 0.1 * torch.eye(given.shape[1], dtype=given.dtype, device=given.device)
    left = both - given @ torch.linalg.solve(gram, given.T @ both)
    # Ranks in a deviation of their own, however little of them is left: lower, or they would drown the rest.
    ranks = left[:, : y.columns.shape[1]]
    spread = ranks.std(0)
    ranks *= torch.where(spread > 1e-3, 0.3 / spread, 0.0)
    return left.float()


def independence_test(
    x: Tensor, y: Tensor, *, permutations: int, generator: torch.Generator
) -> tuple[float, float]:
    """How strongly two variables depend on each other, in [0, 1], and p of that by chance, in (0, 1].

    Of their features by ``kernel_features``, (N, rank). The generator is on the CPU. A variable that never
    varies is independent of all: (0, 1).
    """
    if not (x.shape[1] and y.shape[1]):
        return 0.0, 1.0
    if y.shape[1] > x.shape[1]:
        x, y = y, x  # the narrower one is permuted
    observed = _hsic(x, y)
    # Rounding must not tell apart permutations that give the same value, as between categories.
    limit = observed * (1 - 1e-5)
    reached, tried, rows = 0, 0, len(y)
    while tried < permutations:
        batch = min(_BATCH, permutations - tried)
        orders = torch.stack([torch.randperm(rows, generator=generator) for _ in range(batch)], 1)
        found = (_hsic_permuted(x, y, orders) >= limit).cumsum(0) + reached
        if int(found[-1]) >= _ENOUGH:
            stopped = tried + 1 + int((found >= _ENOUGH).nonzero()[0])
            return _strength(x, y), _ENOUGH / stopped
        reached, tried = int(found[-1]), tried + batch
    p_value = (reached + 1) / (tried + 1)
    if not reached:
        weights = torch.outer(_spectrum(x), _spectrum(y)) / (rows - 1)
        p_value = min(p_value, tail_bound(weights, float(observed)))
    return _strength(x, y), p_value


def tail_bound(weights: Tensor, value: float) -> float:
    """The most that P(sum of w z^2 >= value) can be, z standard normal, w >= 0; by Chernoff, not below 1e-9.

    The least over t in (0, 1 / 2 max w) of exp(-t value) prod (1 - 2 t w)^-1/2. It holds of signs z = +-1 in
    z' A z, too, with w the eigenvalues of A.
    """
    shares = weights.double().flatten().clamp(min=0)
    largest = shares.max()
    if not bool(largest > 0):
        return 1.0
    steps = torch.linspace(0.0, 0.998, 500, dtype=torch.float64, device=shares.device)
    logs = -0.5 * (steps * value / largest + torch.log1p(-steps[:, None] * (shares / largest)).sum(1))
    return max(float(logs.min().exp()), _LEAST)


def adjusted_p_values(p_values: Sequence[float]) -> list[float]:
    """P-values such that those at most q have a false discovery rate of at most q, by Benjamini and Hochberg.

    >>> adjusted_p_values([0.01, 0.5, 0.02])
    [0.03, 0.5, 0.03]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__, reverse=True)
    adjusted, least = [0.0] * len(p_values), 1.0
    for position, test in enumerate(order):
        least = min(least, p_values[test] * len(p_values) / (len(p_values) - position))
        adjusted[test] = least
    return adjusted


def _ranks(column: Tensor) -> Tensor:
    """(N,) mid-ranks, standardised."""
    _, place, counts = column.unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - 0.5 * counts)[place].double()
    return (ranks - ranks.mean()) / ranks.std(correction=0).clamp(min=1e-12)


def _incomplete_cholesky(kernel: Tensor) -> Tensor:
    """(N, rank) factor L with L L' close to the kernel, (N, N) with ones on its diagonal."""
    left = kernel.diagonal().clone()
    columns: list[Tensor] = []
    while len(columns) < min(_RANK, len(kernel)) and float(left.mean()) > 1e-3:
        pivot = int(left.argmax())
        column = kernel[:, pivot].clone()
        for earlier in columns:
            column -= earlier * earlier[pivot]
        column /= left[pivot].sqrt()
        columns.append(column)
        left = (left - column.square()).clamp(min=0)
    return torch.stack(columns, 1)


def _hsic(x: Tensor, y: Tensor) -> Tensor:
    """Squared norm of the cross-covariance of features (N, r) and (N, s), not divided by N."""
    return (x.T @ y).square().sum()


def _hsic_permuted(x: Tensor, y: Tensor, orders: Tensor) -> Tensor:
    """(P,) the same with the rows of y in each of the orders (N, P), by one matrix product."""
    rows, many = orders.shape
    permuted = y.index_select(0, orders.reshape(-1).to(y.device)).reshape(rows, -1)  # (N, P s)
    return (x.T @ permuted).reshape(x.shape[1], many, -1).square().sum((0, 2))


def _spectrum(features: Tensor) -> Tensor:
    """Eigenvalues of the centred features' products, not divided by N."""
    centred = features.double() - features.double().mean(0)
    return torch.linalg.eigvalsh(centred.T @ centred)


def _strength(x: Tensor, y: Tensor) -> float:
    return float(_hsic(x, y) / (_hsic(x, x) * _hsic(y, y)).sqrt())
