"""Scores with confidence intervals: Wilson's for shares, the bootstrap for means; what metrics return.

    shares   of n trials: Wilson's interval (Wilson 1927, JASA 22, eq. 6), which stays in [0, 1]
    means    of n rows: percentile bootstrap (Efron & Tibshirani 1993, section 13.3), seeded; and other
             statistics of rows, such as a correlation or a ratio of sums. Percentiles of few rows lie too
             close: they are widened about the figure by Student's quantile of n - 1 degrees over the normal
             one and by sqrt(n / (n - 1)), within the limits that it has

Rows that all agree have no spread to resample. Where both limits are known, the interval is what a share of
z^2 / (n + z^2) of others could make of the mean, as Wilson's of none in n.
Rows that cannot be measured (nan) are left out of the mean and counted: a figure over half of the rows says
so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from causalgen.effects.estimates import student_ratio
from graphs.errors import DataError, DomainError

__all__ = [
    "Score",
    "bootstrap_interval",
    "figure",
    "mean_score",
    "share_score",
    "statistic_score",
    "wilson_interval",
]

Better = Literal["lower", "higher", "neither"]

Limits = tuple[float, float]
"""Least and greatest value that a figure can have."""

ANY: Limits = (-math.inf, math.inf)
POSITIVE: Limits = (0.0, math.inf)

Statistic = Callable[[np.ndarray], np.ndarray]
"""Of R samples of N rows at once: (R, N, ...) to (R,)."""

_RESAMPLES = 1000
_NUMBERS_AT_ONCE = 4_000_000
"""Row numbers drawn at once by the bootstrap: 32 MB."""


@dataclass(frozen=True)
class Score:
    """A figure with its interval."""

    value: float  #: the mean, or the share
    low: float  #: lower end of its interval; nan where one row leaves it unknown
    high: float  #: upper end
    rows: int  #: it is over
    unit: str = ""  #: what it counts, such as "L1 on 0..255" or "px"
    better: Better = "lower"  #: which way is better
    left_out: int = 0  #: further rows that could not be measured

    def __str__(self) -> str:
        told = figure(self.value)
        if math.isfinite(self.low):
            told += f" ({figure(self.low)} to {figure(self.high)})"
        return told + (f", {self.left_out} rows not measurable" if self.left_out else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; what is unknown or infinite is None."""
        bounds = {name: getattr(self, name) for name in ("value", "low", "high")}
        told: dict[str, Any] = {name: x if math.isfinite(x) else None for name, x in bounds.items()}
        return told | {
            "rows": self.rows, "unit": self.unit, "better": self.better, "left_out": self.left_out,
        }  # fmt: skip


def figure(value: float) -> str:
    """A number for people: three decimals where it is small, fewer where they say nothing.

    >>> figure(0.98765), figure(12.3456), figure(0.000012), figure(0)
    ('0.988', '12.3', '1.2e-05', '0')
    """
    if not math.isfinite(value):
        return "-" if math.isnan(value) else str(value)
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3:
        return f"{value:.1e}"
    return f"{value:.3f}" if size < 10 else f"{value:.1f}" if size < 1000 else f"{value:,.0f}"


def mean_score(
    values: ArrayLike,
    unit: str = "",
    *,
    better: Better = "lower",
    limits: Limits = ANY,
    confidence: float = 0.95,
    seed: int = 0,
) -> Score:
    """The mean over rows with its bootstrap interval.

    >>> str(mean_score([1.0, 1.0, 1.0]))
    '1.000 (1.000 to 1.000)'

    Args:
        values: (N,); nan where a row could not be measured.
        unit: of a value.
        better: which way is better.
        limits: the least and the greatest value that a row can have.
        confidence: of the interval.
        seed: of the bootstrap.

    Raises:
        DataError: no rows.
    """
    rows = _rows(values)
    known = rows[~np.isnan(rows)]
    if not len(known):
        return Score(math.nan, math.nan, math.nan, 0, unit, better, len(rows))
    low, high = bootstrap_interval(known, limits=limits, confidence=confidence, seed=seed)
    return Score(float(known.mean()), low, high, len(known), unit, better, len(rows) - len(known))


def statistic_score(
    values: ArrayLike,
    statistic: Statistic,
    unit: str = "",
    *,
    better: Better = "neither",
    limits: Limits = ANY,
    least: int = 1,
) -> Score:
    """A statistic of rows (N, k) of several numbers, with its bootstrap interval.

    ``statistic`` takes samples of rows, (R, N, k), to (R,), nan where it does not exist, as it does below
    ``least`` rows. A row with a nan could not be measured.
    """
    rows = np.asarray(values, dtype=float)
    if not len(rows):
        raise DataError("A score needs at least one row, got an empty selection.")
    known = rows[~np.isnan(rows).any(1)]
    left_out = len(rows) - len(known)
    if len(known) < least:
        return Score(math.nan, math.nan, math.nan, len(known), unit, better, left_out)
    low, high = _resampled(known, statistic, limits, confidence=0.95, seed=0)
    return Score(float(statistic(known[None])[0]), low, high, len(known), unit, better, left_out)


def share_score(
    hits: ArrayLike, unit: str = "share", *, better: Better = "higher", confidence: float = 0.95
) -> Score:
    """The share of rows in which something holds, (N,) booleans, with Wilson's interval.

    >>> str(share_score([True] * 127 + [False]))
    '0.992 (0.957 to 0.999)'

    Raises:
        DataError: no rows.
    """
    rows = _rows(hits)
    low, high = wilson_interval(int(rows.sum()), len(rows), confidence=confidence)
    return Score(float(rows.mean()), low, high, len(rows), unit, better)


def wilson_interval(successes: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share.

    >>> [round(bound, 4) for bound in wilson_interval(0, 10)]
    [0.0, 0.2775]

    Raises:
        DomainError: not 0 <= successes <= trials with at least one trial, or no confidence in (0, 1).
    """
    if not (trials >= 1 and 0 <= successes <= trials):
        raise DomainError(
            f"A share needs 0 <= successes <= trials, trials >= 1; got {successes} of {trials}."
        )
    z = NormalDist().inv_cdf(0.5 + _checked(confidence) / 2)
    share = successes / trials
    middle = share + z**2 / (2 * trials)
    reach = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    # At the ends the interval touches 0 or 1 exactly, which rounding would miss.
    low = (middle - reach) / scale if successes else 0.0
    return low, (middle + reach) / scale if successes < trials else 1.0


def bootstrap_interval(
    values: ArrayLike, *, limits: Limits = ANY, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of the mean of (N,) values: 1,000 resamples; (nan, nan) of a single row.

    Percentiles, widened where rows are few, within ``limits`` of a value; see the head of this module.

    Raises:
        DataError: no rows.
        DomainError: no confidence in (0, 1).
    """
    rows = _rows(values)
    if len(rows) > 1 and np.isfinite(limits).all() and (rows == rows[0]).all():
        z, value = NormalDist().inv_cdf(0.5 + _checked(confidence) / 2), float(rows[0])
        share = z**2 / (len(rows) + z**2)
        return value - share * (value - limits[0]), value + share * (limits[1] - value)
    return _resampled(rows, lambda rows: rows.mean(1), limits, confidence, seed)


def _resampled(
    rows: np.ndarray, statistic: Statistic, limits: Limits, confidence: float, seed: int
) -> tuple[float, float]:
    """Bootstrap interval of a statistic; resamples in which it does not exist are left out."""
    tail = (1 - _checked(confidence)) / 2
    if len(rows) == 1:
        return math.nan, math.nan
    random = np.random.default_rng(seed)
    together = max(1, _NUMBERS_AT_ONCE // rows.size)
    found = np.concatenate(
        [
            statistic(rows[random.integers(len(rows), size=(min(together, _RESAMPLES - done), len(rows)))])
            for done in range(0, _RESAMPLES, together)
        ]
    )
    if not len(exist := found[~np.isnan(found)]):
        return math.nan, math.nan
    count, value = len(rows), statistic(rows[None])[0]
    wider = student_ratio(count - 1, confidence) * math.sqrt(count / (count - 1))
    ends = value + (np.quantile(exist, [tail, 1 - tail]) - value) * wider
    low, high = ends.clip(*limits)
    return float(low), float(high)


def _rows(values: ArrayLike) -> np.ndarray:
    rows = np.asarray(values, dtype=float)
    if rows.ndim != 1:
        raise DataError(f"A score is over one number a row, got values of shape {rows.shape}.")
    if not len(rows):
        raise DataError("A score needs at least one row, got an empty selection.")
    return rows


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise DomainError(f"confidence lies between 0 and 1, got {confidence!r}.")
    return confidence
