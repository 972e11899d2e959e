"""Likeness and diversity: what a counterfactual keeps of its factual, and what its draws do not share.

An image that reaches its new class and keeps nothing of the old one is a sample, not a counterfactual. What
should survive an intervention is whatever the asked causes do not determine:

    an attribute   Pearson's correlation of what is read from the counterfactual with what is read from its
                   factual, over rows; at most what ``kept_in_rank`` gives, where classes differ in it
    any image      how often it is nearer to its own factual than to another real image of the factual's
                   class, by Euclidean distance of pixels or of features, 1/2 is chance. The direction in
                   which real images change with the asked cause is left out: else an image that moved to
                   another class is nearest to whatever lies on the way

What the evidence leaves open differs between draws of one row. Half the mean squared distance of two draws is
their variance, so that with x_i, x_i' two draws of one row and x_j one of another row, asked the same,

    diversity = E|x_i - x_i'|² / E|x_i - x_j|² = E Var(x_cf | row) / Var(x_cf)       (law of total variance)

It is 0 for an abduction that gives a point, and 1 for draws that do not depend on the factual: samples.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from causalgen.metrics.controls import Rows
from causalgen.metrics.image_rows import check_same_rows, class_codes, image_rows
from causalgen.metrics.scores import POSITIVE, Score, mean_score, statistic_score
from graphs.errors import DataError, ShapeError
from graphs.variables import Categorical, Variable
from graphs.variables.arrays import as_array, as_numbers

__all__ = ["as_vectors", "attribute_correlation", "diversity", "kept_in_rank", "likeness", "moves_of"]

Floats = NDArray[np.floating[Any]]

_AT_ONCE = 1000
_CONSTANT = 1e-12
"""Deviation, as a share of the largest value, up to which numbers are constant: rounding, no variation."""


def attribute_correlation(values: ArrayLike, factual: ArrayLike) -> Score:
    """Pearson's correlation of an attribute of counterfactuals with that of their factuals.

    >>> str(attribute_correlation([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0]))
    '1.000 (1.000 to 1.000)'

    Args:
        values: read from the counterfactuals, (N,); nan where a row could not be measured.
        factual: read from the factuals, (N,).

    Returns:
        r with its bootstrap interval over rows, or Fisher's (1921) where that is wider; nan where fewer than
        three rows are known, or one of them does not vary.

    Raises:
        DataError: no rows.
        ShapeError: not a value a row.
    """
    both = [np.asarray(each, dtype=np.float64) for each in (values, factual)]
    if both[0].ndim != 1 or both[0].shape != both[1].shape:
        raise ShapeError(f"Expected two numbers a row, (N,) each, got {both[0].shape} and {both[1].shape}.")
    score = statistic_score(
        np.stack(both, 1), _correlation, "r", better="higher", limits=(-1.0, 1.0), least=3
    )
    if not abs(score.value) < 1:
        return score
    # Of few rows resamples are of two or three, whose r says nothing: at least as wide as Fisher's.
    reach = NormalDist().inv_cdf(0.975) / math.sqrt(score.rows - 3) if score.rows > 3 else math.inf
    low, high = (math.tanh(math.atanh(score.value) + each) for each in (-reach, reach))
    return replace(score, low=min(low, score.low), high=max(high, score.high))


def kept_in_rank(
    factual: ArrayLike, classes: ArrayLike, asked: ArrayLike, real: ArrayLike, real_classes: ArrayLike
) -> Floats:
    """An attribute of the class asked for, at the rank that it has in its own: as alike as the law allows.

    Where classes differ in an attribute, no answer can keep its value. Of all answers whose attribute has the
    law of the class asked for, whatever the pair of classes, these correlate most with their factuals: among
    joint laws of two given marginals the monotone one has the largest covariance (Hoeffding 1940). What
    correlates more with its factual than these lacks the law.

    >>> kept_in_rank([2.0, 9.0], ["a", "b"], ["b", "a"], [1.0, 2.0, 3.0, 7.0, 8.0, 9.0], [*"aaabbb"])
    array([8., 3.])

    Args:
        factual: read from the factuals, (N,); nan where a row could not be measured, which stays.
        classes: of the factuals, (N,) any values.
        asked: the classes asked for, (N,).
        real: read from M real images.
        real_classes: theirs, (M,).

    Returns:
        (N,) float64.

    Raises:
        DataError: a class that no measured real image has.
        ShapeError: lengths that differ.
    """
    values, known = np.asarray(factual, dtype=np.float64), np.asarray(real, dtype=np.float64)
    own, other, theirs = np.asarray(classes), np.asarray(asked), np.asarray(real_classes)
    if values.ndim != 1 or not values.shape == own.shape == other.shape or known.shape != theirs.shape:
        raise ShapeError(
            "Expected a number and two classes a row, (N,) each, and a number and a class a real image, (M,) "
            f"each, got {values.shape}, {own.shape} and {other.shape}, and {known.shape} and {theirs.shape}."
        )
    result = np.full(values.shape, np.nan)
    measured = np.isfinite(known)
    sorted_by = {
        each: np.sort(known[measured & (theirs == each)]) for each in {*own.tolist(), *other.tolist()}
    }
    if missing := [each for each, found in sorted_by.items() if not len(found)]:
        raise DataError(f"No real image of class {missing[0]!r} could be measured: give some of each class.")
    for row, (mine, wanted) in enumerate(zip(own.tolist(), other.tolist(), strict=True)):
        if np.isfinite(value := values[row]):
            among = sorted_by[mine]
            below, up_to = np.searchsorted(among, value), np.searchsorted(among, value, "right")
            rank = (below + up_to) / (2 * len(among))
            result[row] = np.quantile(sorted_by[wanted], rank, method="hazen")
    return result


def likeness(
    images: object,
    factual: object,
    real: object,
    classes: ArrayLike,
    real_classes: ArrayLike,
    *,
    moves: ArrayLike | None = None,
    own: Rows | None = None,
) -> Score:
    """Share of other real images of the factual's class that are further away; 1/2 is chance.

    Args:
        images: counterfactuals: images (N, C, H, W), uint8 or floats in [0, 1], or features (N, F).
        factual: the same of the factuals.
        real: the same of M real images.
        classes: of the factuals, (N,) any values; all equal where there are none.
        real_classes: of the real images, (M,).
        moves: (N or 1, F), the direction of each row's intervention, along which nothing is compared; see
            ``moves_of``.
        own: row of the real images that each factual is, (N,), which is not compared with it.

    Returns:
        The mean over rows; a row whose class has no other image is left out. Equal distances count half.

    Raises:
        DataError: no rows.
        ShapeError: rows or sizes that do not fit each other.
        DomainError: pixels out of range.
    """
    made, before = as_vectors(images, where="The images"), as_vectors(factual, where="The factuals")
    others = as_vectors(real, where="The real images")
    labels, pool = np.asarray(classes), np.asarray(real_classes)
    check_same_rows(counterfactuals=made, factuals=before, classes=labels)
    check_same_rows(real_images=others, real_classes=pool)
    if own is not None:
        own = class_codes(own, where="The factuals' own rows", count=len(others))
        check_same_rows(factuals=before, own_rows=own)
    if not made.shape[1] == before.shape[1] == others.shape[1]:
        sizes = [each.shape[1] for each in (made, before, others)]
        raise ShapeError(f"Counterfactuals, factuals and real images are of different sizes: {sizes}.")
    along = _directions(moves, made)
    itself = ((made - before) ** 2).sum(1) - ((along * made).sum(1) - (along * before).sum(1)) ** 2
    shares = np.full(len(made), np.nan)
    for label in dict.fromkeys(labels.tolist()):  # texts and numbers alike, which do not sort
        members, asked = np.flatnonzero(pool == label), np.flatnonzero(labels == label)
        for rows in np.array_split(asked, 1 + len(asked) // _AT_ONCE):
            apart = _squares(made[rows], others[members])
            apart -= ((along[rows] * made[rows]).sum(1)[:, None] - along[rows] @ others[members].T) ** 2
            near = itself[rows][:, None]
            allowed = np.ones(apart.shape, bool) if own is None else members != own[rows][:, None]
            further = ((apart > near) + 0.5 * (apart == near)) * allowed
            count = allowed.sum(1)
            shares[rows] = np.where(count > 0, further.sum(1) / np.maximum(count, 1), np.nan)
    return mean_score(shares, "share of others further away", better="higher", limits=(0.0, 1.0))


def moves_of(real: object, values: object, before: object, after: object, variable: Variable) -> Floats:
    """The direction in which real images change with a cause, for ``likeness``.

    Of a category it is from the mean of the old class to that of the new one, (N, F); of a number the slope
    of the images on it, (1, F), which needs no length.

    Args:
        real: images (M, C, H, W), or features (M, F).
        values: of the cause, (M,).
        before: the factual values, (N,).
        after: the asked values, (N,).
        variable: the cause.

    Raises:
        DataError: no rows.
        ShapeError: not a value a row.
        DomainError: values outside the variable's domain.
    """
    vectors, cause = as_vectors(real, where="The real images"), variable.encode(values, where="Real values")
    check_same_rows(real_images=vectors, real_values=cause)
    if not isinstance(variable, Categorical):
        return (cause - cause.mean()).astype(vectors.dtype)[None] @ vectors
    old, new = (variable.encode(each, where="Asked values") for each in (before, after))
    means = np.tile(vectors.mean(0), (variable.size, 1))  # of a class without images that of all
    for code in np.unique(cause):
        means[code] = vectors[cause == code].mean(0)
    return means[new] - means[old]


def diversity(draws: object, others: object) -> Score:
    """Variance of draws of one row as a share of the variance over rows that are asked the same.

    Args:
        draws: S >= 2 draws of N rows: images (S, N, C, H, W), or features (S, N, F).
        others: draws (K, N, ...) of other rows, each under the asked causes of the row in its place.

    Returns:
        The share, with its bootstrap interval over rows: 0 for draws that are equal, about 1 for draws that
        do not depend on their row.

    Raises:
        DataError: a single draw, or no variation over rows.
        ShapeError: rows or sizes that do not fit each other.
        DomainError: pixels out of range.
    """
    one, other = _drawn(draws, "The draws"), _drawn(others, "The draws of other rows")
    if one.shape[1:] != other.shape[1:]:
        raise ShapeError(
            f"Draws of {tuple(one.shape[1:])} against {tuple(other.shape[1:])}: rows must be paired."
        )
    if len(one) < 2:
        raise DataError("Diversity needs at least 2 draws of each row, got 1. Ask for num_samples=4.")
    pairs = [(s, t) for s in range(len(one)) for t in range(s)]
    within = np.mean([((one[s] - one[t]) ** 2).sum(1) for s, t in pairs], 0)
    between = np.mean([((a - b) ** 2).sum(1) for a in one for b in other], 0)
    if not between.sum() > 0:
        raise DataError("The draws of different rows are all equal: no variance to take a share of.")
    return statistic_score(np.stack([within, between], 1), _share, "share of variance", limits=POSITIVE)


def _correlation(rows: Floats) -> Floats:
    """Pearson's r of pairs (R, N, 2), (R,); nan where one of them is constant."""
    apart = rows - rows.mean(1, keepdims=True)
    squares = (apart**2).sum(1)
    varies = (squares > rows.shape[1] * (_CONSTANT * np.abs(rows).max(1)) ** 2).all(1)
    product = np.sqrt(squares.prod(1))
    return np.where(varies, apart.prod(2).sum(1) / np.where(varies, product, 1.0), np.nan)


def _share(rows: Floats) -> Floats:
    """Ratio of sums of pairs (R, N, 2), (R,); nan where nothing varies."""
    within, between = rows.sum(1).T
    return np.where(between > 0, within / np.where(between > 0, between, 1.0), np.nan)


def as_vectors(values: object, *, where: str = "Images") -> Floats:
    """Images (N, C, H, W), uint8 or floats in [0, 1], as float32 (N, F); features (N, F) as float64.

    Raises:
        DataError: no images.
        ShapeError: another shape.
        DomainError: pixels out of range, or features that are no numbers.
    """
    if np.ndim(values) == 2:  # type: ignore[arg-type]
        return as_numbers(values, where=where).astype(np.float64)
    return image_rows(values, where=where).flatten(1).numpy()


def _drawn(values: object, where: str) -> Floats:
    """Draws of images, or of features, as vectors (S, N, F)."""
    array = as_array(values, where=where)
    if array.ndim not in (3, 5):
        raise ShapeError(
            f"{where}: expected images (S, N, C, H, W) or features (S, N, F), got {array.shape}."
        )
    flat = as_vectors(array.reshape(-1, *array.shape[2:]), where=where)
    return flat.reshape(*array.shape[:2], -1)


def _squares(one: Floats, other: Floats) -> Floats:
    """Squared Euclidean distances of all pairs, (N, M); not by products, whose rounding hides small ones."""
    first, second = (torch.from_numpy(each) for each in (one, other))
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").square().numpy()


def _directions(moves: ArrayLike | None, vectors: Floats) -> Floats:
    """Directions of length 1, (N, F), 0 where there is none."""
    if moves is None:
        return np.zeros_like(vectors)
    given = np.asarray(moves, dtype=vectors.dtype)
    if given.ndim != 2 or given.shape[1] != vectors.shape[1] or len(given) not in (1, len(vectors)):
        raise ShapeError(f"Moves: expected shape {vectors.shape}, or one row, got {given.shape}.")
    length = np.linalg.norm(given, axis=1, keepdims=True)
    return np.broadcast_to(given / np.where(length > 0, length, 1.0), vectors.shape)
