"""CLD, the counterfactual latent divergence (Sanchez & Tsaftaris 2022), and the interpretability IM1 and IM2.

    d    = KL(q(z | x_cf) || q(z | x_F))                    of an unconditional variational autoencoder
    S_c  = {KL(q(z | x) || q(z | x_F)) : x real, of class c}
    CLD  = log(a exp P(S_cf <= d) + b exp P(S_F >= d))      lower is better

x_F is the factual image, x_cf the counterfactual, S_cf over its new class and S_F over its old one (Sanchez &
Tsaftaris 2022, *Diffusion causal models for counterfactual estimation*, with a = b = 1: ``PAPER``). The
benchmark of Melistas et al. 2024 weighs 0.8 and 0.2 (``BENCHMARK``; its published code has this
formula, but its KL takes the means for log-deviations too, so its values are others).

With a = b = 1 the range is log 2 .. 1 + log 2. Doing nothing, d = 0, scores log(a + b e): 1.313 and 0.295.
The floor is the least that any d can score, and depends on how far the classes overlap around x_F. The number
depends on the autoencoder: compare values only under the same one, frozen before any of them is seen.

IM1 and IM2: interpretability of counterfactuals by autoencoders (Van Looveren & Klaise 2021).

    IM1 = |x - AE_cf(x)|² / (|x - AE_F(x)|² + ε)         below 1: more like the new class than like the old
    IM2 = |AE_cf(x) - AE_all(x)|² / (|x|_1 + ε)          near 0: as the new class's images are in the data

x is the counterfactual image, AE_F and AE_cf are the autoencoders of its factual and of its new class, AE_all
the one of all classes; numerators are squared l2 norms, IM2's denominator is the l1 norm (Van Looveren &
Klaise 2021, *Interpretable counterfactual explanations guided by prototypes*). Pixels lie in [0, 1]; for
another range, such as [-0.5, 0.5], IM2 is another number. ε = 1e-8.

Both depend on the autoencoders: compare values only under the same ones. IM1 favours blurred prototypes of
the new class, and IM2 anything that autoencoders draw alike, so neither replaces effectiveness or a control.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import e, log
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.metrics.image_rows import check_same_rows, class_codes, image_rows, rows_of_class
from causalgen.metrics.scores import POSITIVE, Score, mean_score
from graphs.errors import DomainError, ShapeError

__all__ = [
    "BENCHMARK",
    "ClassDistances",
    "PAPER",
    "class_distances",
    "cld",
    "cld_do_nothing",
    "cld_floor",
    "gaussian_divergence",
    "im1",
    "im2",
]

Floats = NDArray[np.float64]
Encoder = Callable[[object], tuple[Tensor, Tensor]]
"""Images to mean and log-variance of q(z | x), each (N, latent)."""

PAPER, BENCHMARK = (1.0, 1.0), (0.8, 0.2)
"""Weights (a, b)."""

FEWEST = 10
"""Real images that a class must have: P is resolved in steps of one over their number."""

_EQUAL = 1e-5
"""How far apart, as a share, the distances of one image may be by rounding in batches of other sizes."""

_NUMBERS_AT_ONCE = 2**24

Reconstruction = Callable[[Tensor], Tensor]
"""(N, C, H, W) float32 in [0, 1] to the same."""

_EPSILON = 1e-8


def gaussian_divergence(
    mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor
) -> Tensor:
    """KL(N(m, diag exp v) || N(m', diag exp v')) in nats, summed over the last axis; arguments broadcast.

    KL = 1/2 sum(v' - v + (exp v + (m - m')²) / exp v' - 1)
    """
    ratio = (log_variance.exp() + (mean - other_mean).square()) / other_log_variance.exp()
    return 0.5 * (other_log_variance - log_variance + ratio - 1).sum(-1)


@dataclass(frozen=True)
class ClassDistances:
    """Latent distances from N factual images to real images of two classes, which score any d."""

    encode: Encoder  #: images to the mean and log-variance of q(z | x)
    factual: tuple[Tensor, Tensor]  #: mean and log-variance at the factual images, (N, latent) each
    own: tuple[Floats, ...]  #: S_F of each row, sorted
    target: tuple[Floats, ...]  #: S_cf of each row, sorted

    def to(self, images: object) -> Floats:
        """d of each row's image, (N,).

        Raises:
            ShapeError: not an image a row.
        """
        found = self.encode(images)
        check_same_rows(counterfactual_images=found[0], factual_images=self.factual[0])
        return gaussian_divergence(*found, *self.factual).clamp(min=0).numpy()

    def score(self, distances: Floats, weights: tuple[float, float] = PAPER) -> Floats:
        """CLD of each row at its distance d, (N,)."""
        near = [_share(row, d, "right") for row, d in zip(self.target, distances * (1 + _EQUAL), strict=True)]
        far = [1 - _share(row, d, "left") for row, d in zip(self.own, distances * (1 - _EQUAL), strict=True)]
        return _combined(np.array(near), np.array(far), weights)

    def least(self, weights: tuple[float, float] = PAPER) -> Floats:
        """The least CLD of each row over all d >= 0, (N,).

        P(S_F >= d) falls just behind each s in S_F, and P(S_cf <= d) rises at each s in S_cf: the least is at
        d = 0 or just behind some s in S_F.
        """
        floor = self.score(np.zeros(len(self.own)), weights)
        for row, (own, target) in enumerate(zip(self.own, self.target, strict=True)):
            near = np.searchsorted(target, own, "right") / len(target)
            far = 1 - np.searchsorted(own, own, "right") / len(own)
            floor[row] = min(floor[row], _combined(near, far, weights).min())
        return floor


def class_distances(
    encode: Encoder,
    factual: object,
    factual_classes: object,
    counterfactual_classes: object,
    real: object,
    real_classes: object,
) -> ClassDistances:
    """Prepare CLD: the sorted distances from each factual image to real images of its old and new class.

    Args:
        encode: images to the mean and log-variance of q(z | x): ``evaluators.latents``.
        factual: images (N, C, H, W), uint8 or floats in [0, 1].
        factual_classes: (N,) codes.
        counterfactual_classes: (N,) codes of the classes asked for.
        real: images (M, C, H, W); at least 10 of each class asked about. They may hold the factual ones.
        real_classes: (M,) codes.

    Raises:
        DataError: no images, or a class with too few real ones.
        ShapeError: rows that do not fit each other.
        DomainError: pixels out of range, or codes that are no whole numbers.
    """
    old = class_codes(factual_classes, where="The factual classes")
    new = class_codes(counterfactual_classes, where="The counterfactual classes")
    pool = class_codes(real_classes, where="The real classes")
    here, there = _encoded(encode, factual), _encoded(encode, real)
    check_same_rows(factual_images=here[0], factual_classes=old, counterfactual_classes=new)
    check_same_rows(real_images=there[0], real_classes=pool)
    own: list[Floats] = [np.empty(0)] * len(old)
    target: list[Floats] = [np.empty(0)] * len(old)
    for code in np.union1d(old, new).tolist():
        members = torch.from_numpy(rows_of_class(pool, code, fewest=FEWEST, where="The real images"))
        asked = np.flatnonzero((old == code) | (new == code))
        for rows in np.array_split(asked, max(1, len(asked) * len(members) // _NUMBERS_AT_ONCE)):
            index = torch.from_numpy(rows)
            found = _all_pairs(there[0][members], there[1][members], here[0][index], here[1][index])
            for row, distances in zip(rows.tolist(), np.sort(found.numpy(), axis=1), strict=True):
                if old[row] == code:
                    own[row] = distances
                if new[row] == code:
                    target[row] = distances
    return ClassDistances(encode, here, tuple(own), tuple(target))


def cld(counterfactual: object, distances: ClassDistances, weights: tuple[float, float] = PAPER) -> Score:
    """CLD of counterfactual images, the mean over rows (Sanchez & Tsaftaris 2022); lower is better.

    CLD = log(a exp P(S_cf <= d) + b exp P(S_F >= d)); see the head of this module.

    Args:
        counterfactual: images (N, C, H, W), uint8 or floats in [0, 1], row i made from factual row i.
        distances: of ``class_distances``, for the same rows.
        weights: (a, b): ``PAPER`` or ``BENCHMARK``.

    Raises:
        ShapeError: not an image a row.
        DomainError: pixels out of range, or weights that are not positive.
    """
    return mean_score(distances.score(distances.to(counterfactual), weights), "nats")


def cld_floor(distances: ClassDistances, weights: tuple[float, float] = PAPER) -> Score:
    """The mean over rows of the least CLD over d: no counterfactual scores below it."""
    return mean_score(distances.least(weights), "nats")


def cld_do_nothing(weights: tuple[float, float] = PAPER) -> float:
    """CLD of returning the factual image: P(S_cf <= 0) = 0 and P(S_F >= 0) = 1, so log(a + b e).

    >>> round(cld_do_nothing(), 3), round(cld_do_nothing(BENCHMARK), 4)
    (1.313, 0.2954)
    """
    near, far = _checked(weights)
    return log(near + far * e)


def _encoded(encode: Encoder, images: object) -> tuple[Tensor, Tensor]:
    mean, log_variance = (each.double() for each in encode(images))
    if mean.ndim != 2 or mean.shape != log_variance.shape:
        raise ShapeError(
            "Expected a mean and a log-variance (N, latent) of the encoder, got shapes "
            f"{tuple(mean.shape)} and {tuple(log_variance.shape)}."
        )
    return mean, log_variance


def _all_pairs(mean: Tensor, log_variance: Tensor, to_mean: Tensor, to_log_variance: Tensor) -> Tensor:
    """KL from each of M Gaussians to each of N, (N, M): ``gaussian_divergence`` as two matrix products."""
    precision = (-to_log_variance).exp()
    quadratic = precision @ (log_variance.exp() + mean.square()).T - 2 * (precision * to_mean) @ mean.T
    constant = (precision * to_mean.square() + to_log_variance - 1).sum(1, keepdim=True)
    # Rounding may leave a hair below 0 where the two are the same image.
    return (0.5 * (quadratic + constant - log_variance.sum(1))).clamp(min=0)


def _share(values: Floats, bound: float, side: Literal["left", "right"]) -> float:
    """The share of sorted values below a bound, with those at it where the side is "right"."""
    return np.searchsorted(values, bound, side) / len(values)


def _combined(near: Floats, far: Floats, weights: tuple[float, float]) -> Floats:
    first, second = _checked(weights)
    return np.log(first * np.exp(near) + second * np.exp(far))


def _checked(weights: tuple[float, float]) -> tuple[float, float]:
    first, second = weights
    if not (first > 0 and second > 0):
        raise DomainError(f"CLD's weights are positive, got {weights}.")
    return first, second


def im1(
    counterfactual: object, factual_autoencoder: Reconstruction, counterfactual_autoencoder: Reconstruction
) -> Score:
    """IM1: how much worse the old class's autoencoder draws the counterfactual than the new one's.

    IM1 = |x - AE_cf(x)|² / (|x - AE_F(x)|² + ε), the mean over rows (Van Looveren & Klaise 2021).

    Args:
        counterfactual: images (N, C, H, W), uint8 or floats in [0, 1].
        factual_autoencoder: AE_F, of each row's factual class: ``evaluators.class_autoencoder(digits)``.
        counterfactual_autoencoder: AE_cf, of each row's new class.

    Raises:
        DataError: no images.
        ShapeError: not images, or an autoencoder that returns another shape.
        DomainError: pixels out of range.
    """
    images = image_rows(counterfactual, where="The counterfactual images")
    own = _squared(images, _made(counterfactual_autoencoder, images))
    other = _squared(images, _made(factual_autoencoder, images))
    return mean_score(own / (other + _EPSILON), "ratio", limits=POSITIVE)


def im2(
    counterfactual: object, counterfactual_autoencoder: Reconstruction, autoencoder: Reconstruction
) -> Score:
    """IM2: how differently the new class's autoencoder and that of all classes draw the counterfactual.

    IM2 = |AE_cf(x) - AE_all(x)|² / (|x|_1 + ε), the mean over rows (Van Looveren & Klaise 2021).
    Some publications print ten times the value.

    Args:
        counterfactual: images (N, C, H, W), uint8 or floats in [0, 1].
        counterfactual_autoencoder: AE_cf, of each row's new class: ``evaluators.class_autoencoder(digits)``.
        autoencoder: AE_all: ``evaluators.autoencoder``.

    Raises:
        DataError: no images.
        ShapeError: not images, or an autoencoder that returns another shape.
        DomainError: pixels out of range, or a black image, whose |x|_1 is 0.
    """
    images = image_rows(counterfactual, where="The counterfactual images")
    size = images.double().flatten(1).sum(1).numpy()
    if not size.all():
        row = int(np.flatnonzero(size == 0)[0])
        raise DomainError(f"IM2 divides by the sum of the pixels, and image {row} is black. Leave it out.")
    apart = _squared(_made(counterfactual_autoencoder, images), _made(autoencoder, images))
    return mean_score(apart / (size + _EPSILON), "per unit of ink", limits=POSITIVE)


def _made(autoencoder: Reconstruction, images: Tensor) -> Tensor:
    with torch.no_grad():
        made = torch.as_tensor(autoencoder(images))
    if made.shape != images.shape:
        raise ShapeError(
            f"An autoencoder returned shape {tuple(made.shape)} for images of shape {tuple(images.shape)}."
        )
    return made


def _squared(one: Tensor, other: Tensor) -> NDArray[np.float64]:
    """Squared l2 distance of each row, (N,)."""
    return (one.double() - other.double()).square().flatten(1).sum(1).numpy()
