"""FD, the Frechet distance of images in a network's features (see FID), and interventional consistency.

    FD = |m1 - m2|² + Tr(C1 + C2 - 2 (C1 C2)^(1/2))

with the means m and covariances C of the features, as in the Frechet inception distance of Heusel,
Ramsauer, Unterthiner, Nessler & Hochreiter 2017 (*GANs trained by a two time-scale update rule*, equation 6),
which takes the features of an Inception network. In the features of another network it is another number, so
it is called FD(name, sha256) and never FID.

Interventional consistency: counterfactuals, averaged over factuals, have the interventional law.

    E_{x ~ p} p(x_cf | x, do(pa = v)) = p(x | do(pa = v))

since the noise of data has the prior law whatever was observed (Pearl 2009, theorem 7.1.7: the twin network's
noise is shared, not changed). An abduction that gives one point near the posterior mean breaks it: each image
may reach the class asked for and stay near its factual, and all of them together vary too little. Compared
are equally many counterfactuals and samples of ``do``, as sets:

    pixel variance    within a class, over that of samples: 1 is consistent, below 1 too alike
    features          FD
    an attribute      over all rows together, Kolmogorov-Smirnov distance of its distribution functions, 0..1

Controls are needed beside these too: a random real image is consistent and no counterfactual.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from causalgen.checking.statistics import sample_distance
from causalgen.metrics.image_rows import image_rows
from causalgen.metrics.scores import POSITIVE, Score, mean_score
from graphs.errors import DataError, DomainError, ShapeError

__all__ = [
    "FeatureDistance",
    "Features",
    "attribute_distance",
    "feature_distance",
    "frechet_distance",
    "variance_ratio",
    "variance_within",
]

Floats = NDArray[np.float64]

_CHUNK = 1000


@dataclass(frozen=True)
class Features:
    """A network's features of images."""

    name: str  #: of the network
    sha256: str  #: of its weights, in hexadecimal
    network: Callable[[Tensor], Tensor]  #: (B, C, H, W) float32 in [0, 1] to (B, features)

    def __call__(self, images: object, *, where: str = "The images") -> Floats:
        """Features of images, (N, features); see ``causalgen.metrics.image_rows`` for what images are."""
        pixels = image_rows(images, where=where)
        with torch.no_grad():
            parts = [self.network(part) for part in pixels.split(_CHUNK)]
        return torch.cat(parts).double().numpy()


@dataclass(frozen=True)
class FeatureDistance:
    """A Frechet distance that says in whose features."""

    value: float  #: at least 0; 0 for equal sets
    name: str  #: of the network
    sha256: str  #: of its weights
    rows: tuple[int, int]  #: images in either set

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"FD({self.name}, {self.sha256[:8]}) = {self.value:.4g}"


def feature_distance(images: object, real: object, features: Features) -> FeatureDistance:
    """FD(name, sha256) of images from real ones (Heusel et al. 2017, in the features given).

    The estimate is biased upwards by few images: compare only distances of equally many.

    Args:
        images: (N, C, H, W), uint8 or floats in [0, 1].
        real: (M, C, H, W).
        features: of which network; ``Evaluators.features`` is one.

    Raises:
        DataError: no more images than features, in either set: their covariance would be singular.
        ShapeError: not images, or of another size than the network's.
        DomainError: pixels out of range.
    """
    sets = {
        "The images": features(images, where="The images"),
        "The real images": features(real, where="The real images"),
    }
    for where, each in sets.items():
        if len(each) <= each.shape[1]:
            raise DataError(
                f"{where}: {len(each)} are too few for a Frechet distance in {each.shape[1]} features; "
                f"expected at least {each.shape[1] + 1}."
            )
    first, second = sets.values()
    # Of a single feature numpy's covariance is a number.
    covariances = [np.atleast_2d(np.cov(each, rowvar=False)) for each in (first, second)]
    value = frechet_distance(first.mean(0), covariances[0], second.mean(0), covariances[1])
    return FeatureDistance(value, features.name, features.sha256, (len(first), len(second)))


def frechet_distance(mean: Floats, covariance: Floats, other_mean: Floats, other_covariance: Floats) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians (Dowson & Landau 1982).

    >>> frechet_distance([0.0], [[1.0]], [3.0], [[4.0]])  # (0 - 3)² + (1 - 2)²
    10.0

    Args:
        mean: (d,).
        covariance: (d, d), symmetric, positive semi-definite.
        other_mean: (d,).
        other_covariance: (d, d).

    Raises:
        ShapeError: shapes that do not fit.
        DomainError: a covariance that is not symmetric and positive semi-definite.
    """
    means = [np.asarray(each, dtype=np.float64) for each in (mean, other_mean)]
    covariances = [np.asarray(each, dtype=np.float64) for each in (covariance, other_covariance)]
    size = means[0].shape
    if len(size) != 1 or means[1].shape != size or any(each.shape != size * 2 for each in covariances):
        shapes = [each.shape for each in (*means, *covariances)]
        raise ShapeError(f"Expected two means (d,) and two covariances (d, d), got {shapes}.")
    root = _square_root(covariances[0])
    _square_root(covariances[1])
    # C1 C2 has the eigenvalues of the symmetric root C2 root, whose root's trace is that of (C1 C2)^(1/2).
    product = np.linalg.eigvalsh(root @ covariances[1] @ root)
    trace = float(np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.sqrt(product.clip(0)).sum())
    return float(((means[0] - means[1]) ** 2).sum()) + max(trace, 0.0)


def _square_root(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    slack = 1e-8 * max(float(np.abs(values).max(initial=0)), 1e-300)
    if not np.allclose(covariance, covariance.T, rtol=1e-8, atol=slack) or not values.min() >= -slack:
        raise DomainError(
            "A covariance must be symmetric and positive semi-definite, got the least eigenvalue "
            f"{values.min():g}."
        )
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def variance_within(images: object, groups: ArrayLike) -> Floats:
    """What each image adds to the pixel variance within its group, summed over pixels, (N,).

    Its mean is the variance, unbiased; nan for an image alone in its group. Images are (N, C, H, W), uint8
    or floats in [0, 1]; those of equal ``groups``, (N,), form one.

    Raises:
        DataError: no images, or one without a group.
        ShapeError: not a group a row.
        DomainError: pixels out of range.
    """
    pixels = image_rows(images, where="The images").double().flatten(1).numpy()
    labels = np.asarray(groups)
    if pd.isna(labels).any():
        raise DataError("Some images have no group (None, or nan). Leave them out.")
    if labels.shape != (len(pixels),):
        raise ShapeError(f"Expected a group for each of {len(pixels)} images, got shape {labels.shape}.")
    index, _ = pd.factorize(labels)  # texts and numbers alike, which do not sort
    counts = np.bincount(index)
    sums = np.zeros((len(counts), pixels.shape[1]))
    np.add.at(sums, index, pixels)
    squares = ((pixels - (sums / counts[:, None])[index]) ** 2).sum(1)
    size = counts[index].astype(float)
    return np.where(size > 1, squares * size / np.maximum(size - 1, 1), math.nan)


def variance_ratio(images: object, groups: ArrayLike, samples: object, sample_groups: ArrayLike) -> Score:
    """Pixel variance within groups of counterfactuals as a share of that of samples; 1 is consistent.

    The interval holds the error of the counterfactuals' variance, and not that of the samples'.

    Args:
        images: counterfactuals, (N, C, H, W), uint8 or floats in [0, 1].
        groups: (N,) such as their classes.
        samples: of the model under the same intervention, (M, C, H, W).
        sample_groups: (M,).

    Raises:
        DataError: no images, or no two samples of one group, or samples that do not vary.
        ShapeError: not a group a row.
        DomainError: pixels out of range.
    """
    own, reference = variance_within(images, groups), variance_within(samples, sample_groups)
    if not np.isfinite(reference).any() or not np.nanmean(reference) > 0:
        raise DataError("The samples do not vary within their groups: no variance to compare with.")
    shares = own / np.nanmean(reference)
    score = mean_score(shares, "share of samples' variance", better="neither", limits=POSITIVE)
    # Rows of a group share its mean: n of them in G groups are n - G, and the bootstrap took them for n - 1.
    count = len(pd.unique(np.asarray(groups)[np.isfinite(own)]))
    wider = math.sqrt((score.rows - 1) / (score.rows - count)) if score.rows else math.nan
    low, high = (score.value + (each - score.value) * wider for each in (score.low, score.high))
    return replace(score, low=max(low, 0.0), high=high)


def attribute_distance(values: ArrayLike, samples: ArrayLike) -> Score:
    """Kolmogorov-Smirnov distance of an attribute's distributions, rows that cannot be measured left out.

    Of equal laws and n rows each it stays below 1.36 sqrt(2 / n) in 95 % of all cases.

    Args:
        values: the attribute of counterfactuals, (N,).
        samples: of samples, (M,).

    Raises:
        DataError: nothing measurable in one of them.
    """
    sets = [np.asarray(each, dtype=np.float64).reshape(-1) for each in (values, samples)]
    known = [each[~np.isnan(each)] for each in sets]
    if not all(len(each) for each in known):
        raise DataError("No row's attribute could be measured: no distribution to compare.")
    distance = sample_distance(*(torch.from_numpy(each) for each in known))
    left_out = len(sets[0]) - len(known[0])
    return Score(distance, math.nan, math.nan, len(known[0]), "KS distance", left_out=left_out)
