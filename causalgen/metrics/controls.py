"""Controls for counterfactual images: a random and the nearest real image of the wanted class.

    random real    any real image of the target class: as effective as images are, and nobody's counterfactual
    nearest real   the one nearest to the factual in L1: the best that looking it up can do

The class of a category is its images. The class of a number is the 1 % of real images whose value is nearest.
A model that is no more faithful than the nearest real image has found a prototype, not a counterfactual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.metrics.image_rows import check_same_rows, class_codes, image_rows
from graphs.errors import DataError, ShapeError
from graphs.variables import Categorical, Variable

__all__ = ["RealImages", "Rows", "class_rows", "real_images"]

Rows = NDArray[np.int64]
"""Row numbers."""

_SHARE = 0.01
_NUMBERS_AT_ONCE = 2**24
"""Pixels compared at once: 64 MB."""


@dataclass(frozen=True)
class RealImages:
    """Real images of the wanted class for each of N factual ones, as row numbers of the pool, (N,)."""

    random: Rows  #: any of the class
    nearest: Rows  #: the nearest to the factual image, in L1


def real_images(
    factual: object,
    wanted: object,
    pool: object,
    pool_values: object,
    variable: Variable,
    *,
    own: Rows | None = None,
    least: int = 2,
    seed: int = 0,
) -> RealImages:
    """A random and the nearest real image of the wanted class, for each row.

    Args:
        factual: images (N, C, H, W), floats in [0, 1] or uint8.
        wanted: the value each should have, (N,).
        pool: real images (M, C, H, W) to choose from.
        pool_values: their values, (M,).
        variable: of these values: a category, or a single number.
        own: row of the pool that each factual image is, (N,), which is never chosen for it.
        least: images that a class must have, beside the factual one.
        seed: of the random choice.

    Raises:
        DataError: no rows, or a class with fewer than ``least`` images.
        ShapeError: numbers of rows that disagree.
    """
    images, reals = image_rows(factual), image_rows(pool, where="Pool of real images")
    target, values = _values(variable, wanted, "Wanted"), _values(variable, pool_values, "Pool")
    for one, other, what in ((images, target, "factual"), (reals, values, "pool")):
        if len(one) != len(other):
            raise ShapeError(f"Real images, {what}: {len(one)} images and {len(other)} values.")
    if own is not None:
        own = class_codes(own, where="The factuals' own rows", count=len(reals))
        check_same_rows(factual_images=images, own_rows=own)
    flat, real = images.flatten(1), reals.flatten(1)
    random, draws = np.zeros(len(flat), np.int64), np.random.default_rng(seed)
    nearest = random.copy()
    for rows, members in class_rows(target, values, variable, least=least + (own is not None)):
        apart = _distances(flat[rows], real[members])
        allowed = np.ones(apart.shape, bool) if own is None else members[None] != own[rows][:, None]
        apart[~allowed] = np.inf
        nearest[rows] = members[apart.argmin(1)]
        random[rows] = members[np.where(allowed, draws.random(apart.shape), -1).argmax(1)]
    return RealImages(random, nearest)


def class_rows(
    target: NDArray[Any],
    values: NDArray[Any],
    variable: Variable,
    *,
    least: int,
    names: Sequence[str] | None = None,
) -> list[tuple[Rows, Rows]]:
    """Rows with the same wanted value of ``target`` (N,), and the rows of the pool (M,) that have it.

    Values are canonical, a category's or a single number's. Messages call each category by ``names``, as in
    "Bin 3"; "Class 3" or "Class 'label'" where None.
    """
    found: list[tuple[Rows, Rows]] = []
    if isinstance(variable, Categorical):
        for code in np.unique(target):
            members = np.flatnonzero(values == code)
            if len(members) < least:
                name = names[code] if names else f"Class {variable.decode(np.array([code])).tolist()[0]!r}"
                raise DataError(
                    f"{name} has {len(members)} real images, and this needs at least {least}. Give more rows."
                )
            found.append((np.flatnonzero(target == code), members))
        return found
    count = max(least, ceil(_SHARE * len(values)))
    if len(values) < count:
        raise DataError(f"The pool has {len(values)} real images, and this needs at least {count}.")
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    for value in np.unique(target):
        first = _window(ranked, value, count)
        last = first + count
        if ranked[first] == ranked[last - 1]:  # of whole numbers, the first in the file would stand for many
            first, last = (
                int(np.searchsorted(ranked, ranked[first], side=side)) for side in ("left", "right")
            )
        found.append((np.flatnonzero(target == value), order[first:last]))
    return found


def _window(ranked: NDArray[Any], value: float, count: int) -> int:
    """Where the ``count`` nearest of sorted values begin."""
    place = int(np.searchsorted(ranked, value))
    low, high = max(0, place - count), min(place, len(ranked) - count)
    starts = np.arange(low, max(low, high) + 1)
    starts = starts[starts + count <= len(ranked)]
    reach = np.maximum(np.abs(ranked[starts] - value), np.abs(ranked[starts + count - 1] - value))
    return int(starts[reach.argmin()])


def _values(variable: Variable, values: object, where: str) -> NDArray[Any]:
    if variable.event_shape:
        raise ShapeError(f"{where}: a class is of a category or of one number, got {variable.describe()}.")
    return variable.encode(values, where=where)


def _distances(one: Tensor, other: Tensor) -> NDArray[np.float32]:
    """Mean absolute difference of all pairs, (N, M)."""
    step = max(1, _NUMBERS_AT_ONCE // other.numel())
    parts = [torch.cdist(one[start : start + step], other, p=1) for start in range(0, len(one), step)]
    return (torch.cat(parts) / one.shape[1]).numpy()
