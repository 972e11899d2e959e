"""Least squares from moments, where these are accurate.

    minimise |y - b - X w|^2:   C w = c  with C = cov(X), c = cov(X, y);   b = mean(y) - mean(X) w

Columns are centred before they are multiplied, so a year near 2000 keeps its digits, and the system is
solved for columns of unit deviation. That squares their condition number (Bjorck, Numerical Methods for Least
Squares Problems, 1996, section 2.2), hence the limit: beyond it, as where columns depend on each other, the
caller has to decompose the columns themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["solve_moments"]

_SMALLEST = 1e-4
"""Least eigenvalue of the correlations: the weights lose at most 4 of 16 digits."""


def solve_moments(columns: Sequence[Tensor], value: Tensor) -> tuple[Tensor, Tensor] | None:
    """Weights (p, width) and bias (width,) of the least squares fit, or None where moments are too coarse.

    Args:
        columns: of the regressors, each (N, any), p in all; N >= 1.
        value: what is regressed, (N, width).
    """
    width = value.shape[1]
    # A row for each column: the sums below run over contiguous memory.
    rows = torch.cat([each.T for each in (*columns, value)]).to(value)
    mean = rows.mean(1, keepdim=True)
    moments = rows.sub_(mean).matmul(rows.T).div_(rows.shape[1]).cpu()
    mean = mean[:, 0].cpu()
    p = len(mean) - width
    deviation = moments.diagonal()[:p].sqrt()
    # Rounding in the mean gives a constant column a tiny deviation.
    if not bool((deviation > 1e-12 * mean[:p].abs()).all()):
        return None
    scale = deviation[:, None]
    values, vectors = torch.linalg.eigh(moments[:p, :p] / (scale * deviation))
    if not bool(values[0] > _SMALLEST):
        return None
    weight = vectors @ (vectors.T @ (moments[:p, p:] / scale) / values[:, None]) / scale
    return weight.to(value), (mean[p:] - mean[:p] @ weight).to(value)
