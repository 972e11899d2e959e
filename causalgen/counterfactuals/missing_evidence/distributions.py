"""What ``abduction.posterior(node)`` gives: the distribution of a node given the evidence, row by row."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["CategoryPosterior", "GaussianPosterior", "MixturePosterior", "Posterior", "SamplePosterior"]


@dataclass(frozen=True, eq=False)
class GaussianPosterior:
    """A normal distribution, exactly; an observed row has its value and no covariance.

    Attributes:
        mean: (B, *event), in data units.
        covariance: (B, D, D) of the flattened event.
    """

    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True, eq=False)
class CategoryPosterior:
    """The probability of each category, or of each whole number within bounds, exactly.

    Where an image bears on it, exactly given the anticausal predictor.

    Attributes:
        probabilities: (B, K); an observed row has a 1.
        values: (K,) which value each column stands for: codes, or whole numbers.
    """

    probabilities: Tensor
    values: Tensor


@dataclass(frozen=True, eq=False)
class MixturePosterior:
    """A mixture of normal distributions, exactly; an observed row has its value, and no covariance.

    There is one for each combination of the missing categories that are inferred together with the number.

    Attributes:
        weights: (K, B), summing to 1 over K.
        means: (K, B, *event), in data units.
        covariances: (K, B, D, D) of the flattened event.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor

    @property
    def mean(self) -> Tensor:
        """(B, *event) of the mixture."""
        weights = self.weights.reshape(*self.weights.shape, *[1] * (self.means.ndim - 2))
        return (weights * self.means).sum(0)

    @property
    def covariance(self) -> Tensor:
        """(B, D, D) of the mixture, of the flattened event: within its parts and between them."""
        apart = (
            (self.means - self.mean).flatten(2)
            if self.means.ndim > 2
            else (self.means - self.mean)[..., None]
        )
        spread = self.covariances + apart[..., :, None] * apart[..., None, :]
        return (self.weights[..., None, None] * spread).sum(0)


@dataclass(frozen=True, eq=False)
class SamplePosterior:
    """Weighted draws.

    Attributes:
        values: (P, B, *event) in canonical encoding; an observed row has its value P times.
        weights: (P, B), summing to 1 over P.
    """

    values: Tensor
    weights: Tensor

    @property
    def effective_sample_size(self) -> Tensor:
        """(B,) draws of equal weight that would say as much (Kong 1992): 1 / sum of squared weights."""
        return 1 / self.weights.square().sum(0)


Posterior = GaussianPosterior | CategoryPosterior | MixturePosterior | SamplePosterior
