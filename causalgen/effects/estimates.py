"""A mean difference between two worlds, with the error that comes of having finitely many draws.

Units u = 1..U are independent: draws of the population, rows of evidence, or the draws of a single row. Each
brings the sum n_u of its weighted differences and the sum d_u of their weights. Then

    estimate         m = sum n_u / sum d_u
    standard error   sqrt(U / (U - 1) * sum (n_u - m d_u)^2) / sum d_u     (a ratio's, to first order)
    interval         percentiles of m over resampled units (Efron 1979)

Neither knows how wrong the model is: they shrink with the number of draws, whatever it was fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "Floats", "estimate"]

Floats = NDArray[np.float64]

_RESAMPLES = 1000
_MOST_UNITS = 20_000
_AT_ONCE = 2**24
"""Numbers held at once while resampling: about 128 MB."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A mean effect; every figure is a float, or an array of the statistic's shape.

    Attributes:
        value: mean of the statistic under ``do`` minus that under ``versus``.
        standard_error: of the value, by the number of draws alone; NaN where one random draw cannot tell.
        low: lower end of its bootstrap interval.
        high: upper end.
        under_do: mean of the statistic under ``do``.
        under_versus: mean of the statistic under ``versus``.
        rows: how many rows it averages over.
    """

    value: Any
    standard_error: Any
    low: Any
    high: Any
    under_do: Any
    under_versus: Any
    rows: int


def estimate(
    under_do: Floats,
    under_versus: Floats,
    weights: Floats,
    *,
    certain: bool,
    confidence: float,
    generator: np.random.Generator,
) -> Estimate:
    """The weighted mean difference.

    Args:
        under_do: statistic in the one world, (S, B, *shape).
        under_versus: in the other, likewise.
        weights: of rows and samples, (S, B), at least 0; rows of weight 0 take no part.
        certain: whether nothing was drawn: the difference of each row is known.
        confidence: of the interval.
        generator: for resampling.
    """
    if certain:  # samples of a row do not differ
        under_do, under_versus, weights = under_do[:1], under_versus[:1], weights.sum(0, keepdims=True)
    shape, weight = under_do.shape[2:], weights[..., None]
    one, other = (each.reshape(*weights.shape, -1) for each in (under_do, under_versus))
    if weights.shape[1] == 1:  # the draws of a single row are the units
        one, other, weight = (each.swapaxes(0, 1) for each in (one, other, weight))
    difference, mass = ((one - other) * weight).sum(0), weight.sum(0)
    value, total = difference.sum(0) / mass.sum(), mass.sum()
    rows = int((weights.sum(0) > 0).sum())
    taken = mass[:, 0] > 0
    difference, mass = difference[taken], mass[taken]
    if len(mass) > 1:
        spread = ((difference - value * mass) ** 2).sum(0) * len(mass) / (len(mass) - 1)
        error = np.sqrt(spread) / total
        low, high = _bootstrap(difference, mass, confidence, generator)
    else:
        error = np.full_like(value, 0.0 if certain else np.nan)
        low, high = value - error, value + error
    means = [(each * weight).sum((0, 1)) / total for each in (one, other)]
    figures = (_plain(each, shape) for each in (value, error, low, high, *means))
    return Estimate(*figures, rows=rows)


def _bootstrap(
    difference: Floats, mass: Floats, confidence: float, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    if len(mass) > _MOST_UNITS:  # sums of units drawn together are independent units too, and fewer
        order = generator.permutation(len(mass))
        starts = np.linspace(0, len(mass), _MOST_UNITS, endpoint=False).astype(np.int64)
        difference, mass = (np.add.reduceat(each[order], starts) for each in (difference, mass))
    units = len(mass)
    means = []
    step = max(1, _AT_ONCE // units)
    for start in range(0, _RESAMPLES, step):
        drawn = generator.integers(0, units, (min(step, _RESAMPLES - start), units))
        counts = np.stack([np.bincount(each, minlength=units) for each in drawn]).astype(np.float64)
        means.append((counts @ difference) / (counts @ mass))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return low, high


def _plain(value: Floats, shape: tuple[int, ...]) -> Any:
    return float(value[0]) if shape == () else value.reshape(shape)
