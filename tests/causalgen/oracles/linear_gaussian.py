"""Linear-Gaussian models by matrix algebra, numpy alone: x = shift + matrix x + gain u, u ~ N(0, variance).

Everything follows from x = inverse (shift + gain u), inverse = (I - matrix)^-1; ``shift`` may differ by row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

__all__ = ["LinearGaussian"]


@dataclass(frozen=True)
class LinearGaussian:
    """Columns in topological order, so that ``matrix`` is strictly lower triangular by node.

    Attributes:
        matrix: (D, D) slopes.
        shift: (D,) or (N, D) intercepts.
        gain: (D,) what the noise is multiplied by: 1, or 0 where a column was set.
        variance: (D,) of the noise.
    """

    matrix: np.ndarray
    shift: np.ndarray
    gain: np.ndarray
    variance: np.ndarray

    @property
    def inverse(self) -> np.ndarray:
        """(D, D): what each column's own term adds to every column."""
        inverse = np.eye(len(self.matrix))
        for column, slopes in enumerate(self.matrix):  # by substitution: what is zero is exactly zero
            inverse[column] += slopes @ inverse
        return inverse

    @property
    def mean(self) -> np.ndarray:
        """(D,) or (N, D)."""
        return self.shift @ self.inverse.T

    @property
    def covariance(self) -> np.ndarray:
        """(D, D)."""
        spread = self.inverse * (self.gain * np.sqrt(self.variance))
        return spread @ spread.T

    def values(self, noise: np.ndarray) -> np.ndarray:
        """(N, D) noise -> (N, D) values."""
        return (self.shift + self.gain * noise) @ self.inverse.T

    def noise(self, values: np.ndarray) -> np.ndarray:
        """(N, D) values -> (N, D) noise; of a model nobody intervened on."""
        assert (self.gain == 1).all()
        return values - values @ self.matrix.T - self.shift

    def log_density(self, values: np.ndarray) -> np.ndarray:
        """(N,) of the joint normal law."""
        deviation = values - self.mean
        _, log_determinant = np.linalg.slogdet(self.covariance)
        distance = np.einsum("ni,ni->n", deviation, np.linalg.solve(self.covariance, deviation.T).T)
        return -0.5 * (distance + log_determinant + values.shape[1] * np.log(2 * np.pi))

    def given(self, seen: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (D,) and covariance (D, D) of a row given columns ``seen``, which may determine each other."""
        mean, covariance = np.broadcast_to(self.mean, values.shape), self.covariance
        scale = np.sqrt(np.diag(covariance))
        scale = np.where(scale > 0, scale, 1.0)
        unit = covariance / np.outer(scale, scale)
        gain = unit[:, seen] @ np.linalg.pinv(unit[np.ix_(seen, seen)], rcond=1e-11, hermitian=True)
        posterior = np.where(seen | seen[:, None], 0.0, unit - gain @ unit[seen])
        centre = mean + scale * (gain @ ((values - mean) / scale)[seen])
        centre = np.where(seen, values, centre)
        return centre, posterior * np.outer(scale, scale)

    def dependent(self, seen: np.ndarray) -> bool:
        """Whether some of the columns ``seen`` determine another one of them."""
        covariance = self.covariance[np.ix_(seen, seen)]
        scale = np.sqrt(np.diag(covariance))
        scale = np.where(scale > 0, scale, 1.0)
        return bool(np.linalg.matrix_rank(covariance / np.outer(scale, scale), tol=1e-11) < seen.sum())

    def with_rows(
        self, columns: slice, matrix: np.ndarray, shift: np.ndarray | float, gain: float
    ) -> LinearGaussian:
        """The model with other equations for some columns: slopes (d, D), intercepts, the noise's factor."""
        slopes, gains = self.matrix.copy(), self.gain.copy()
        slopes[columns], gains[columns] = matrix, gain
        rows = max(len(np.atleast_2d(self.shift)), len(np.atleast_2d(shift)))
        shifts = np.broadcast_to(self.shift, (rows, len(gains))).copy()
        shifts[:, columns] = shift
        return replace(self, matrix=slopes, shift=shifts, gain=gains)
