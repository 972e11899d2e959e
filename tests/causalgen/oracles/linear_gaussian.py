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
        mean, (scale, root) = np.broadcast_to(self.mean, values.shape), self._root()
        # By the root, never by the covariance, whose condition number is the square of the root's.
        left, sizes, right = np.linalg.svd(root[seen], full_matrices=False)
        kept = sizes > 1e-9 * max(sizes, default=0.0)
        left, sizes, right = left[:, kept], sizes[kept], right[kept]
        known = right.T @ ((left.T @ ((values - mean) / scale)[seen]) / sizes)
        unknown = root - root @ right.T @ right
        posterior = np.where(seen | seen[:, None], 0.0, unknown @ unknown.T)
        centre = np.where(seen, values, mean + scale * (root @ known))
        return centre, posterior * np.outer(scale, scale)

    def dependent(self, seen: np.ndarray) -> bool:
        """Whether some of the columns ``seen`` determine another one of them."""
        return bool(np.linalg.matrix_rank(self._root()[1][seen], tol=10**-5.5) < seen.sum())

    def _root(self) -> tuple[np.ndarray, np.ndarray]:
        """(D,) deviations, 1 for none, and (D, D) the root of the correlations: x = mean + scale (root z)."""
        spread = self.inverse * (self.gain * np.sqrt(self.variance))
        scale = np.sqrt((spread**2).sum(1))
        scale = np.where(scale > 0, scale, 1.0)
        return scale, spread / scale[:, None]

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
