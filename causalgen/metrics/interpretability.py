"""IM1 and IM2: interpretability of counterfactuals by autoencoders (Van Looveren & Klaise 2021).

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

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.metrics.image_rows import image_rows
from causalgen.metrics.scores import Score, mean_score
from graphs.errors import DomainError, ShapeError

__all__ = ["im1", "im2"]

Reconstruction = Callable[[Tensor], Tensor]
"""(N, C, H, W) float32 in [0, 1] to the same."""

_EPSILON = 1e-8


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
    return mean_score(own / (other + _EPSILON), "ratio")


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
    return mean_score(apart / (size + _EPSILON), "per unit of ink")


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
