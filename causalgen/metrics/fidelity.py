"""Minimality of a counterfactual (Melistas et al. 2024), and its error against the true counterfactual.

    minimality    log(a exp P(S_cf <= d) + b exp P(S_F >= d)), lower is better
                  d: distance of the counterfactual to its factual; S_c: of real images of class c to it,
                  of a number of those in the same of 10 bins with equally many images
                  (Melistas, Spyrou, Gkouti, Sanchez, Vlontzos, Panagakis, Papanastasiou & Tsaftaris 2024,
                  *Benchmarking counterfactual image generation*, section 3.2, a = 0.8, b = 0.2; after CLD of
                  Sanchez & Tsaftaris 2022, where a = b = 1)
    true error    distance to the image that the known data generator makes of the same noise

Doing nothing has d = 0 and scores log(a + b e): .295 with the weights above, 1.313 with a = b = 1. So
minimality says nothing without effectiveness, and nothing without its controls. Its floor is the least that
any d can score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.metrics.axioms import Reader
from causalgen.metrics.controls import class_rows
from causalgen.metrics.image_rows import image_rows
from causalgen.metrics.node_passes import batches
from causalgen.metrics.scores import POSITIVE, Score, mean_score
from graphs.errors import DomainError, ShapeError
from graphs.variables import Categorical, Variable
from graphs.variables.arrays import as_array

__all__ = ["minimality", "true_counterfactual_error"]

Floats = NDArray[np.float64]


def minimality(
    factual: object,
    counterfactual: object,
    factual_values: object,
    wanted: object,
    pool: object,
    pool_values: object,
    variable: Variable,
    *,
    embed: Callable[[Tensor], Any] | None = None,
    weights: tuple[float, float] = (0.8, 0.2),
    bins: int = 10,
    least: int = 10,
) -> dict[str, Score]:
    """Minimality of counterfactuals of one variable, beside doing nothing and the floor.

    Args:
        factual: images (N, C, H, W), floats in [0, 1] or uint8.
        counterfactual: images (N, C, H, W).
        factual_values: value of the variable in the factual images, (N,).
        wanted: and in the counterfactual ones, (N,).
        pool: real images (M, C, H, W).
        pool_values: their values, (M,).
        variable: a category, or a single number.
        embed: images -> features (N, F), compared in mean absolute difference; the pixels where None.
        weights: a and b above.
        bins: of equal counts that a number is cut into.
        least: real images that a class or bin must have.

    Returns:
        ``"counterfactual"``, ``"do nothing"`` and ``"floor"``.

    Raises:
        DataError: no rows, or a class or bin with too few images.
        ShapeError: numbers of rows that disagree.
        DomainError: weights or bins that make no sense.
    """
    if min(weights) <= 0 or bins < 2:
        raise DomainError(f"weights are above 0 and bins at least 2, got {weights} and {bins}.")
    before, after, reals = (
        _features(image_rows(each, where=where), embed)
        for each, where in ((factual, "Factual"), (counterfactual, "Counterfactual"), (pool, "Pool"))
    )
    names = ("Factual values", "Wanted", "Pool values")
    given = zip((factual_values, wanted, pool_values), names, strict=True)
    source, target, values = (variable.encode(each, where=where) for each, where in given)
    sizes = {len(before), len(after), len(source), len(target)}
    if len(sizes) > 1 or len(reals) != len(values):
        raise ShapeError(
            f"Minimality: {len(before)} factual and {len(after)} counterfactual images, {len(source)} and "
            f"{len(target)} values; {len(reals)} images and {len(values)} values in the pool."
        )
    codes, classes, names = _classes(source, target, values, variable, bins)
    asked = np.unique(np.concatenate(codes[:2]))
    found = class_rows(asked, codes[2], classes, least=least, names=names)
    members = {int(asked[place[0]]): rows for place, rows in found}
    moved = (before - after).abs().mean(1).double().numpy()
    each_row = zip(before, moved, codes[0], codes[1], strict=True)
    rows = [_row(image, by, reals[members[f]], reals[members[t]], weights) for image, by, f, t in each_row]
    scores = dict(zip(("counterfactual", "do nothing", "floor"), np.array(rows).T, strict=True))
    return {name: mean_score(column, "nats") for name, column in scores.items()}


def true_counterfactual_error(
    images: object, truth: object, factual: object, measures: Mapping[str, Reader] | None = None
) -> dict[str, dict[str, Score]]:
    """Distance of counterfactual images to the true ones, where the data generator is known.

    Args:
        images: counterfactuals (N, C, H, W), floats in [0, 1] or uint8.
        truth: what the generator makes of the same noise under the same intervention.
        factual: the images before.
        measures: attribute -> a measurement of an image, such as ``metrics.thickness``; compared on the
            images themselves, so that the measurement's own bias cancels.

    Returns:
        ``"pixels"`` (L1 on 0..255) and each attribute -> ``"counterfactual"`` and ``"do nothing"``.

    Raises:
        DataError: no rows.
        ShapeError: images that are not paired.
    """
    made, true, before = (
        image_rows(each, where=where)
        for each, where in ((images, "Counterfactual"), (truth, "True"), (factual, "Factual"))
    )
    if not made.shape == true.shape == before.shape:
        shapes = ", ".join(str(tuple(each.shape)) for each in (made, true, before))
        raise ShapeError(f"True counterfactual error: images must be paired, got {shapes}.")
    subjects = {"counterfactual": made, "do nothing": before}
    apart = {name: 255 * (each - true).abs().flatten(1).mean(1).double() for name, each in subjects.items()}
    pixels = {name: mean_score(each, "L1 on 0..255", limits=POSITIVE) for name, each in apart.items()}
    found = {"pixels": pixels}
    for attribute, measure in (measures or {}).items():
        goal = _measured(true, measure)
        found[attribute] = {
            name: mean_score(np.abs(_measured(each, measure) - goal), "MAE", limits=POSITIVE)
            for name, each in subjects.items()
        }
    return found


def _measured(images: Tensor, measure: Reader) -> Floats:
    return np.concatenate(
        [as_array(measure(images[rows]), where="Measure").astype(float) for _, rows in batches(len(images))]
    )


def _features(images: Tensor, embed: Callable[[Tensor], Any] | None) -> Tensor:
    if embed is None or not len(images):
        return images.flatten(1)
    with torch.no_grad():
        parts = [torch.as_tensor(embed(images[rows])).flatten(1) for _, rows in batches(len(images))]
    return torch.cat(parts).float().cpu()


def _classes(
    source: NDArray[Any], target: NDArray[Any], values: NDArray[Any], variable: Variable, bins: int
) -> tuple[tuple[NDArray[np.int64], ...], Categorical, list[str] | None]:
    """Codes of the three columns: the categories themselves, or bins with equally many pool rows; names."""
    if isinstance(variable, Categorical):
        return (source, target, values), variable, None
    if variable.event_shape:
        raise ShapeError(f"Minimality is of a category or of one number, got {variable.describe()}.")
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])
    ends = [values.min(), *edges, values.max()]
    names = [f"The bin from {low:g} to {high:g}, one of {bins}," for low, high in pairwise(ends)]
    codes = tuple(np.searchsorted(edges, each) for each in (source, target, values))
    return codes, Categorical(bins), names


def _row(
    factual: Tensor, moved: float, same: Tensor, other: Tensor, weights: tuple[float, float]
) -> tuple[float, float, float]:
    """Score of one row at its distance, at 0, and the least over all distances."""
    away, there = (
        np.sort((group - factual).abs().mean(1).double().numpy()) for group in (same, other)
    )  # from the factual to its own class, and to the target class
    # The score only rises at distances to the target class and only falls just past those to its own.
    tried = np.concatenate([[moved, 0.0], np.nextafter(away, np.inf)])
    closer = np.searchsorted(there, tried, side="right") / len(there)
    further = 1 - np.searchsorted(away, tried, side="left") / len(away)
    score = np.log(weights[0] * np.exp(closer) + weights[1] * np.exp(further))
    return float(score[0]), float(score[1]), float(score.min())
