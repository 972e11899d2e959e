"""Interventional consistency: counterfactuals, averaged over factuals, have the interventional law.

    E_{x ~ p} p(x_cf | x, do(pa = v)) = p(x | do(pa = v))

since the noise of data has the prior law whatever was observed (Pearl 2009, theorem 7.1.7: the twin network's
noise is shared, not changed). An abduction that gives one point near the posterior mean breaks it: each image
may reach the class asked for and stay near its factual, and all of them together vary too little. Compared
are equally many counterfactuals and samples of ``do``, as sets:

    pixel variance    within a class, over that of samples: 1 is consistent, below 1 too alike
    features          Frechet distance, see ``feature_distance``
    an attribute      over all rows together, Kolmogorov-Smirnov distance of its distribution functions, 0..1

Controls are needed beside these too: a random real image is consistent and no counterfactual.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from causalgen.checking.statistics import sample_distance
from causalgen.metrics.image_rows import image_rows
from causalgen.metrics.scores import Score, mean_score
from graphs.errors import DataError, ShapeError

__all__ = ["attribute_distance", "variance_ratio", "variance_within"]

Floats = NDArray[np.float64]


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
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if index.shape != (len(pixels),):
        raise ShapeError(f"Expected a group for each of {len(pixels)} images, got shape {index.shape}.")
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
    return mean_score(own / np.nanmean(reference), "share of samples' variance", better="neither")


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
