"""One noise, two laws: P(category i under p, category j under q), exactly, and by rejection sampling.

Gumbel-max: with exponentials E_k = exp(-u_k), i is chosen under p where E_i / p_i is the least. For i = j the
chance is 1 / sum_k max(p_k / p_i, q_k / q_i). For i != j condition on r = E_j / E_i, between p_j / p_i and
q_j / q_i, and integrate E_i out: the density in r is 1 / (1 + r + sum_k max(p_k / p_i, r q_k / q_j))^2, k
the other categories: a piecewise rational function whose pieces have an antiderivative.
"""

from itertools import pairwise

import numpy as np

__all__ = ["gumbel_coupling", "monotone_coupling", "rejected_gumbels"]


def gumbel_coupling(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(K, K) joint probabilities of Gumbel-max categories that share their noise."""
    joint = np.zeros((len(p), len(p)))
    for i in np.flatnonzero(p):
        for j in np.flatnonzero(q):
            joint[i, j] = 1 / np.maximum(p / p[i], q / q[j]).sum() if i == j else _apart(p, q, i, j)
    return joint


def _apart(p: np.ndarray, q: np.ndarray, i: int, j: int) -> float:
    low = p[j] / p[i]
    high = q[j] / q[i] if q[i] > 0 else np.inf
    if low >= high:
        return 0.0
    others = np.delete(np.arange(len(p)), [i, j])
    flat, steep = p[others] / p[i], q[others] / q[j]
    turns = flat[steep > 0] / steep[steep > 0]
    edges = [low, *sorted(turns[(turns > low) & (turns < high)]), high]
    total = 0.0
    for start, stop in pairwise(edges):
        middle = (start + stop) / 2 if np.isfinite(stop) else start + 1.0
        rising = steep * middle > flat
        intercept, slope = 1 + flat[~rising].sum(), 1 + steep[rising].sum()
        total += (1 / (intercept + slope * start) - 1 / (intercept + slope * stop)) / slope
    return total


def monotone_coupling(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(K, K) joint probabilities of categories by the inverse distribution function of one uniform."""
    upper_p, upper_q = np.cumsum(p), np.cumsum(q)
    high = np.minimum(upper_p[:, None], upper_q)
    low = np.maximum((upper_p - p)[:, None], upper_q - q)
    return np.clip(high - low, 0, None)


def rejected_gumbels(
    random: np.random.Generator, p: np.ndarray, q: np.ndarray, seen: int, draws: int
) -> np.ndarray:
    """(K,) counts of categories under q, of those prior Gumbels whose category under p is ``seen``."""
    with np.errstate(divide="ignore"):
        log_p, log_q = np.log(p), np.log(q)
    gumbels = random.gumbel(size=(draws, len(p)))
    kept = gumbels[(log_p + gumbels).argmax(1) == seen]
    return np.bincount((log_q + kept).argmax(1), minlength=len(p))
