"""Standard errors and bootstrap intervals of a mean difference between two worlds of finitely many draws.

Units u = 1..U are independent: draws of the population, rows of evidence, or the draws of a single row. Each
brings the sum n_u of its differences and their number d_u. Then

    estimate         m = sum n_u / sum d_u
    standard error   sqrt(U / (U - 1) * sum (n_u - m d_u)^2) / sum d_u     (a ratio's, to first order)
    interval         percentiles of m over resampled units (Efron 1979), widened about m by the standard
                     error over that of the resampling, and by Student's quantile over the normal one

Percentiles say too little of a boolean that is rarely true: of shares p of gains and q of losses the interval
is that of Bonett & Price (2012), m +- z sqrt((p + q - m^2) / (n + 2)) of one gain and one loss more in n + 2
units, where n units would have the standard error.

Units that all agree have no spread to resample, which is no certainty: another difference, with a share of up
to z^2 / (U + z^2), about 4 / U for 95 %, may have been missed (Wilson 1927, none of U). Of a boolean the
interval is what such a share can make of the mean; that of a number, whose differences may be any, stays a
point, and all are said to agree.

Draws of one row that are copies of one weighted particle are no units of their own: each lineage
(``causalgen.counterfactuals.missing_evidence.particles``) is a clustering of the draws. With V_k the
variance by the clusters of lineage k, and V that by draws, the variance is V + sum over k of (V_k - V)
(Cameron, Gelbach & Miller 2011, "Robust inference with multiway clustering"). V_k is that of the
self-normalised importance sampling estimate that the particles make.

Neither knows how wrong the model is: they shrink with the number of draws, whatever it was fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "Floats", "estimate", "individual_means", "student_ratio"]

Floats = NDArray[np.float64]

_ROUNDING = 64 * np.finfo(np.float64).eps
"""How far apart rounding may put equal differences, in parts of the values."""

_RESAMPLES = 1000
_MOST_UNITS = 20_000
_AT_ONCE = 2**24
"""Numbers held at once while resampling: about 128 MB."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A mean effect; every figure is a float, or an array of the statistic's shape."""

    value: Any  #: mean of the statistic under ``do`` minus that under ``versus``
    standard_error: Any  #: of the value, by the number of draws alone; NaN where one random draw cannot tell
    low: Any  #: lower end of its bootstrap interval
    high: Any  #: upper end
    under_do: Any  #: mean of the statistic under ``do``
    under_versus: Any  #: mean of the statistic under ``versus``
    rows: int  #: how many rows it averages over
    bounded: bool = False  #: whether it is a difference of probabilities, between -1 and 1
    all_agree: Any = False  #: whether all draws, or rows, gave this difference; another one may be rare

    @property
    def told_error(self) -> float:
        """The standard error of a number, 0 where it is but rounding that subtracting shared noise leaves."""
        rounding = _ROUNDING * max(abs(self.under_do), abs(self.under_versus)) / max(self.rows, 1) ** 0.5
        return 0.0 if self.standard_error <= rounding else float(self.standard_error)


def estimate(
    under_do: Floats,
    under_versus: Floats,
    mask: NDArray[np.bool_] | None,
    *,
    certain: bool,
    reached: bool = True,
    bounded: bool = False,
    confidence: float | None,
    generator: np.random.Generator,
    lineages: Sequence[NDArray[np.int64]] = (),
) -> Estimate:
    """The mean difference of a statistic, (S, B, *shape), of two worlds.

    ``mask`` says which rows and samples take part, (S, B); all where None. Where ``certain``, nothing was
    drawn; where not ``reached``, the worlds cannot differ in it; ``bounded`` is a boolean, whose mean is a
    probability. Without a confidence there is no interval, which costs more than all the rest. ``lineages``
    of the draws are (S, B) each.
    """
    weight = np.ones(under_do.shape[:2]) if mask is None else mask.astype(np.float64)
    if certain:  # samples of a row do not differ
        under_do, under_versus, weight = under_do[:1], under_versus[:1], weight.mean(0, keepdims=True)
    shape, members = under_do.shape[2:], np.flatnonzero(weight.any(0))
    rows = len(members)
    one, other = (each.reshape(*weight.shape, -1) for each in (under_do, under_versus))
    weight = weight[..., None]
    single = rows == 1 and not certain  # the draws of a single row are the units
    if single:
        one, other, weight = (each[:, members].swapaxes(0, 1) for each in (one, other, weight))
    difference, mass = ((one - other) * weight).sum(0), weight.sum(0)
    value, total = difference.sum(0) / mass.sum(), mass.sum()
    residual, count = difference - value * mass, int((mass > 0).sum())
    if count > 1:
        plain = (residual**2).sum(0)
        clusters = [each[:, members[0]] for each in lineages] if single else []
        variance, units = _clustered(residual, mass[:, 0], clusters)
        error = np.sqrt(variance) / total
        taken = mass[:, 0] > 0
        low, high, agree = np.full_like(value, np.nan), np.full_like(value, np.nan), value != value
        if confidence is not None:
            agree = _agree(one, other, np.flatnonzero(weight)) if reached else agree
            wider = student_ratio(units - 1, confidence)
            if bounded and reached:
                normal = NormalDist().inv_cdf(0.5 + confidence / 2)
                low, high = _of_probabilities((one - other) * weight / total, error, units, normal * wider)
                low, high = np.minimum(low, value), np.maximum(high, value)
                share = normal**2 / (units + normal**2)
                low = np.where(agree, value - share * (1 + value), low)
                high = np.where(agree, value + share * (1 - value), high)
            else:
                low, high = _bootstrap(difference[taken], mass[taken], confidence, generator)
                wider = wider * np.sqrt(np.divide(variance, plain, out=np.ones_like(plain), where=plain > 0))
                low, high = value + (low - value) * wider, value + (high - value) * wider
    else:
        error = np.full_like(value, 0.0 if certain else np.nan)
        low, high, agree = value - error, value + error, np.zeros(value.shape, dtype=np.bool_)
    means = [(each * weight).sum((0, 1)) / total for each in (one, other)]
    figures = (_plain(each, shape) for each in (value, error, low, high, *means))
    all_agree = bool(agree[0]) if shape == () else agree.reshape(shape)
    return Estimate(*figures, rows=rows, bounded=bounded, all_agree=all_agree)


def individual_means(
    difference: Floats, certain: bool, lineages: Sequence[NDArray[np.int64]]
) -> tuple[Floats, Floats]:
    """Mean over the draws of each row and its standard error, (B, *shape), of differences (S, B, *shape)."""
    if certain:
        return np.array(difference[0]), np.zeros(difference.shape[1:])
    samples, rows = difference.shape[:2]
    mean = difference.mean(0)
    if samples == 1:
        return mean, np.full_like(mean, np.nan)
    residual = (difference - mean).reshape(samples * rows, -1)
    plain = (residual**2).reshape(samples, rows, -1).sum(0) * samples / (samples - 1)
    variance = plain.copy()
    for lineage in lineages:
        _, place, first = _renumbered(lineage * rows + np.arange(rows))
        sums = _sums(residual, place, len(first)) ** 2
        owner = first % rows
        clusters = np.bincount(owner, minlength=rows)[:, None]
        by_row = _sums(sums, owner, rows) * clusters / np.maximum(clusters - 1, 1)
        # One particle alone tells nothing of its error.
        variance = variance + np.where(clusters > 1, by_row - plain, np.nan)
    error = np.sqrt(np.maximum(variance, plain)) / samples
    return mean, error.reshape(mean.shape)


def _agree(one: Floats, other: Floats, taken: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which of D numbers, (S, B, D), differ alike in all draws taken, up to rounding, (D,)."""
    one, other = (each.reshape(-1, each.shape[-1]) for each in (one, other))
    agree = np.ones(one.shape[1], dtype=np.bool_)
    for some in (taken[:50], taken):  # most are told apart by a few
        a, b = one[np.ix_(some, agree)], other[np.ix_(some, agree)]
        rounding = _ROUNDING * np.maximum(np.abs(a).max(0), np.abs(b).max(0))
        agree[agree] = np.ptp(a - b, axis=0) <= rounding
    return agree


def _clustered(residual: Floats, mass: Floats, clusters: Sequence[NDArray[np.int64]]) -> tuple[Floats, float]:
    """Variance of a sum of residuals, (D,), and how many units of equal mass would have it."""
    count = int((mass > 0).sum())
    plain = (residual**2).sum(0) * count / (count - 1)
    variance, units = plain.copy(), float(count)
    for cluster in clusters:
        taken = mass > 0
        number, place, _ = _renumbered(cluster[taken])
        if number == 1:
            return np.full_like(plain, np.nan), 1.0
        by_cluster = (_sums(residual[taken], place, number) ** 2).sum(0) * number / (number - 1)
        variance = variance + by_cluster - plain
        masses = np.bincount(place, mass[taken])
        units = min(units, float(masses.sum() ** 2 / (masses**2).sum()))
    return np.maximum(variance, plain), units


def _renumbered(labels: NDArray[np.int64]) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """How many labels, their places 0, 1, ... in order, flat, and where each occurs first."""
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    return len(first), place.reshape(-1), first


def _sums(values: Floats, place: NDArray[np.int64], number: int) -> Floats:
    """(N, D) summed by place, (number, D)."""
    sums = np.zeros((number, values.shape[1]))
    np.add.at(sums, place, values)
    return sums


def student_ratio(freedom: float, confidence: float) -> float:
    """Student's quantile over the normal one; Cornish & Fisher's expansion from three degrees on."""
    tail = 0.5 + confidence / 2
    z = NormalDist().inv_cdf(tail)
    if freedom < 2:
        quantile = np.tan(np.pi * (tail - 0.5))
    elif freedom < 3:
        quantile = (2 * tail - 1) * np.sqrt(2 / (4 * tail * (1 - tail)))
    else:
        terms = (
            (z**3 + z) / 4,
            (5 * z**5 + 16 * z**3 + 3 * z) / 96,
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
            (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
        )
        quantile = z + sum(term / freedom ** (k + 1) for k, term in enumerate(terms))
    return float(quantile / z)


def _of_probabilities(shares: Floats, error: Floats, units: float, normal: float) -> tuple[Floats, Floats]:
    """The interval of Bonett & Price (2012), (D,) each, of differences that are -1, 0 or 1 times weights.

    At a low confidence it may leave out their mean, from which it is drawn towards 0.
    """
    gain, loss = shares.clip(min=0).sum((0, 1)), -shares.clip(max=0).sum((0, 1))
    count = np.full_like(error, units)
    np.divide(gain + loss - (gain - loss) ** 2, error**2, out=count, where=~(error <= 1e-12))
    gain, loss = (count * gain + 1) / (count + 2), (count * loss + 1) / (count + 2)
    value = gain - loss
    half = normal * np.sqrt((gain + loss - value**2) / (count + 2))
    return np.maximum(value - half, -1), np.minimum(value + half, 1)


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
